# The tables of the first release.
class CreateShop < ActiveRecord::Migration[6.1]
  def change
    create_table :tenants do |t|
      t.text :name, null: false
    end
    create_table :customers do |t|
      t.references :tenant, null: false, foreign_key: true
      t.string :email, null: false
      t.string :ssn, limit: 11
      t.date :born
      t.decimal :balance, precision: 12, scale: 2, default: 0
      t.jsonb :profile
      t.text :labels, array: true
      t.boolean :active, default: true
      t.datetime :seen
      t.integer :visits, null: false, default: 0
      t.timestamps
      t.index %i[tenant_id email], unique: true, name: :one_address
    end
    create_table :orders do |t|
      t.references :customer, null: false, foreign_key: { on_delete: :cascade }
      t.text :what
    end
  end
end

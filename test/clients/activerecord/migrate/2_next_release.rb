# The next release adds a column and an index, and renames a column.
class NextRelease < ActiveRecord::Migration[6.1]
  def change
    add_column :customers, :phone, :text, null: false, default: "-"
    add_index :customers, :visits
    rename_column :customers, :ssn, :tax_number
    change_column_default :customers, :balance, from: 0, to: 5
  end
end

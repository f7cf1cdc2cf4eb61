# ActiveRecord: migrations, models, upserts.  It knows nothing of protection:
# activerecord_test.rb migrate|work|look

require "active_record"
require_relative "tap"

ActiveRecord::Base.establish_connection(
  adapter: "postgresql", username: "app", database: ENV["PGDATABASE"], host: ENV["PGHOST"], port: ENV["PGPORT"])
ActiveRecord::Base.default_timezone = :utc
ActiveRecord::Migration.verbose = false

class Tenant < ActiveRecord::Base
  has_many :customers
end

class Customer < ActiveRecord::Base
  belongs_to :tenant
  has_many :orders
  validates :email, presence: true, uniqueness: { scope: :tenant_id }, on: :form
end

class Order < ActiveRecord::Base
  belongs_to :customer
end

def migrate(version)
  folder = File.join(__dir__, "migrate")
  ActiveRecord::MigrationContext.new(folder, ActiveRecord::SchemaMigration).migrate(version)
  [Tenant, Customer, Order].each(&:reset_column_information)
end

def create_and_read(tenant)
  made = Customer.create!(
    tenant: tenant, email: "anna@mail.example", ssn: "078-05-1120", born: Date.new(1984, 2, 29), balance: "12.50",
    profile: { "tier" => "gold", "n" => [1, nil] }, labels: ["a", "ü"], seen: Time.utc(2024, 3, 31, 1, 30))
  anna = Customer.find(made.id)
  equal [anna.email, anna.ssn, anna.born, anna.balance, anna.profile, anna.labels, anna.active, anna.seen],
        ["anna@mail.example", "078-05-1120", Date.new(1984, 2, 29), BigDecimal("12.50"),
         { "tier" => "gold", "n" => [1, nil] }, ["a", "ü"], true, Time.utc(2024, 3, 31, 1, 30)], "what was saved is read"
  equal made.reload.attributes, anna.attributes, "reloaded"
  anna
end

def filter_by_protected(tenant)
  mine = tenant.customers
  equal mine.find_by(email: "anna@mail.example").ssn, "078-05-1120", "filter by a searchable column"
  equal Customer.where(email: "anna@mail.example").count, 1, "without the tenant too"
  equal mine.where(email: %w[anna@mail.example x]).count, 1, "IN"
  equal mine.where(email: "x").or(mine.where(ssn: "078-05-1120")).count, 1, "OR with one that is not searchable"
  equal mine.where("ssn LIKE ?", "078%").count, 1, "LIKE"
  equal mine.where(born: Date.new(1980)..Date.new(1990)).count, 1, "a range"
  equal mine.where("profile ->> 'tier' = ?", "gold").count, 1, "key of a document"
  equal mine.where("? = ANY (labels)", "ü").count, 1, "member of an array"
  equal mine.where.not(email: "anna@mail.example").count, 0, "NOT"
  equal mine.where(ssn: nil).exists?, false, "IS NULL"
  equal mine.pluck(:email, :balance), [["anna@mail.example", BigDecimal("12.50")]], "pluck"
  equal mine.group(:email).having("count(*) > 0").maximum(:born), { "anna@mail.example" => Date.new(1984, 2, 29) }, "grouped"
  equal mine.sum(:balance), BigDecimal("12.50"), "sum"
  equal mine.order(email: :desc).first.email, "anna@mail.example", "ordered"
  equal mine.select("customers.*, upper(email) AS loud").first.loud, "ANNA@MAIL.EXAMPLE", "all columns and an expression"
  equal (1..12).map { |n| mine.where(email: n.even? ? "anna@mail.example" : "x").count }, [0, 1] * 6, "one statement, many times"
end

def update(anna)
  anna.update!(ssn: "219-09-9999", profile: anna.profile.merge("tier" => "silver"))
  equal Customer.find(anna.id).profile["tier"], "silver", "a row saved"
  anna.increment!(:visits)
  equal Customer.where(id: anna.id).update_all("balance = balance + 1, email = 'new.' || email"), 1, "update_all"
  anna.reload
  equal [anna.balance, anna.email, anna.visits], [BigDecimal("13.50"), "new.anna@mail.example", 1], "updated from old values"
  Customer.transaction { equal Customer.lock("FOR UPDATE SKIP LOCKED").find(anna.id).ssn, "219-09-9999", "locked" }
  anna.with_lock { anna.update!(ssn: nil) }
  equal Customer.find(anna.id).ssn, nil, "made NULL"
  whole = Customer.new(Customer.find(anna.id).attributes)
  Customer.delete(anna.id)
  Customer.partial_writes = false
  whole.save!
  Customer.partial_writes = true
  equal Customer.find(anna.id).email, "new.anna@mail.example", "every column written, NULLs too"
end

def bulk(tenant)
  now = Time.utc(2024)
  rows = ->(range, ssn) do
    range.map { |n| { tenant_id: tenant.id, email: "user#{n}@mail.example", ssn: ssn || format("%03d-00-0000", n), created_at: now, updated_at: now } }
  end
  equal Customer.insert_all!(rows.(0...500, nil), returning: %i[email]).rows.first, ["user0@mail.example"], "bulk insert, RETURNING"
  Customer.upsert_all(rows.(490...510, "111-11-1111"), unique_by: :one_address)
  equal Customer.where(ssn: "111-11-1111").count, 20, "upsert on a protected unique column, by its index"
  equal Customer.insert_all(rows.(0...10, nil), unique_by: :one_address).length, 0, "conflicts ignored"
  equal Customer.insert_all(rows.(0...10, nil)).length, 0, "without saying which"
  equal Customer.count, 511, "no row twice"
  equal Customer.find_each(batch_size: 50).sum { 1 }, 511, "in batches"
  equal Customer.where("email LIKE 'user50%'").update_all(ssn: "222-22-2222"), 11, "bulk update"
  equal Customer.where(ssn: "222-22-2222").where.not(email: "user50@mail.example").delete_all, 10, "bulk delete"
end

def constraints(tenant)
  error = raises(ActiveRecord::RecordNotUnique, "a second row with the same address") { tenant.customers.create!(email: "user1@mail.example") }
  ok error.message.include?("one_address"), "by its old name"
  equal tenant.customers.new(email: "user1@mail.example").valid?(:form), false, "which a form sees before"
  raises(ActiveRecord::NotNullViolation, "NOT NULL") { tenant.customers.create!(email: nil) }
  raises(ActiveRecord::ValueTooLong, "too long") { tenant.customers.create!(email: "long@mail.example", ssn: "1" * 12) }
  equal tenant.customers.create_or_find_by!(email: "user1@mail.example").ssn, "001-00-0000", "create_or_find_by finds"
  Customer.transaction do
    Customer.transaction(requires_new: true) do
      tenant.customers.create!(email: "nested@mail.example")
      raise ActiveRecord::Rollback
    end
  end
  equal Customer.exists?(email: "nested@mail.example"), false, "a savepoint, rolled back"
end

def related(anna)
  order = Order.create!(customer: anna, what: "book")
  equal Order.joins(:customer).where(customers: { email: anna.email }).pluck(:what), ["book"], "joined"
  equal Order.includes(:customer).find(order.id).customer.email, anna.email, "loaded beside it"
  equal Customer.left_joins(:orders).group(:id).having("count(orders.id) > 0").map(&:email), [anna.email], "grouped by the key"
  anna.destroy!
  equal Order.count, 0, "deleted with what hangs on it"
end

# Tables as they are after the next release.
def next_release(tenant)
  migrate 2
  equal tenant.customers.where(tax_number: "001-00-0000").pluck(:email, :phone), [["user1@mail.example", "-"]], "renamed by a migration, it is read"
  late = tenant.customers.create!(email: "late@mail.example", tax_number: "333-33-3333", phone: "1")
  equal Customer.find(late.id).balance, 5, "and written, with the new default"
end

def work
  tenant = Tenant.create!(name: "acme")
  other = Tenant.create!(name: "other")
  anna = create_and_read(tenant)
  filter_by_protected(tenant)
  update(anna)
  bulk(tenant)
  constraints(tenant)
  related(Customer.find(anna.id))
  moved = tenant.customers.find_by(email: "user2@mail.example")
  moved.update!(tenant: other)
  equal other.customers.find_by(email: "user2@mail.example").ssn, "002-00-0000", "moved to another tenant"
  next_release(tenant)
  Customer.order(:id).each { |c| puts "# #{c.attributes.except('created_at', 'updated_at')}" }
end

# What of a protected table can be seen.
def look
  own = Customer.column_names.grep_v(/__(sealed|term)\z/)
  ok own != Customer.column_names, "the model sees the sidecars"
  equal Customer.first.attributes.keys, own, "rows do not have them"
  equal Customer.columns_hash["email"].sql_type, "character varying", "columns have their types"
  raises(ActiveRecord::StatementInvalid, "a join that loads names every column, and is refused") { Customer.eager_load(:orders).to_a }
  raises(ActiveRecord::StatementInvalid, "so is one that a condition asks for") { Customer.includes(:orders).where(orders: { what: "book" }).to_a }
  raises(ArgumentError, "ON CONFLICT by columns looks for the index, and does not find it") do
    Customer.upsert_all([{ tenant_id: 1, email: "x" }], unique_by: %i[tenant_id email])
  end
  schema = StringIO.new
  ActiveRecord::SchemaDumper.dump(ActiveRecord::Base.connection, schema)
  ok schema.string.match?(/email__sealed/) && !schema.string.match?(/zzz_envelope_seal/), "schema.rb has them, but no trigger"
  Customer.ignored_columns = Customer.column_names.grep(/__(sealed|term)\z/)
  equal Customer.column_names, own, "ignored, the model does not see them"
  equal Customer.eager_load(:orders).find_by(email: "late@mail.example").tax_number, "333-33-3333", "and such a join works"
  equal Customer.new.attributes.keys, own, "new rows do not have them"
end

finish { ARGV[0] == "migrate" ? migrate(1) : send(ARGV[0]) }

// What the shop stores, and how its tables came to be.

const { EntitySchema, TableColumn, TableIndex } = require("typeorm");

const id = { type: "bigint", primary: true, generated: "identity", generatedIdentity: "BY DEFAULT" };

const Tenant = new EntitySchema({
	name: "Tenant", tableName: "tenants",
	columns: { id, name: { type: "text" } },
});

const customer = {
	id,
	tenantId: { type: "bigint", name: "tenant_id" },
	email: { type: "varchar" },
	ssn: { type: "varchar", length: 11, nullable: true },
	born: { type: "date", nullable: true },
	balance: { type: "numeric", precision: 12, scale: 2, nullable: true },
	profile: { type: "jsonb", nullable: true },
	labels: { type: "text", array: true, nullable: true },
	mood: { type: "enum", enum: ["sad", "happy"], enumName: "mood", nullable: true },
	token: { type: "uuid", nullable: true },
	seen: { type: "timestamptz", nullable: true },
	scan: { type: "bytea", nullable: true },
	active: { type: "boolean", default: true },
	visits: { type: "int", default: 0 },
	version: { type: "int", version: true },
};

const relations = {
	tenant: { type: "many-to-one", target: "Tenant", joinColumn: { name: "tenant_id" } },
	orders: { type: "one-to-many", target: "Order", inverseSide: "customer" },
};

const Customer = new EntitySchema({
	name: "Customer", tableName: "customers", columns: customer, relations,
	uniques: [{ name: "one_address", columns: ["tenantId", "email"] }],
});

// The next release's: a column more, one renamed, an index.
const NextCustomer = new EntitySchema({
	name: "Customer", tableName: "customers", relations,
	columns: { ...customer, ssn: { ...customer.ssn, name: "tax_number" }, phone: { type: "text", default: "-" } },
	uniques: [{ name: "one_address", columns: ["tenantId", "email"] }],
	indices: [{ name: "by_visits", columns: ["visits"] }],
});

const Order = new EntitySchema({
	name: "Order", tableName: "orders",
	columns: { id, what: { type: "text" } },
	relations: { customer: { type: "many-to-one", target: "Customer", joinColumn: { name: "customer_id" }, inverseSide: "orders", onDelete: "CASCADE" } },
});

class NextRelease1700000000000 {
	name = "NextRelease1700000000000";

	async up(runner) {
		await runner.addColumn("customers", new TableColumn({ name: "phone", type: "text", default: "'-'" }));
		await runner.createIndex("customers", new TableIndex({ name: "by_visits", columnNames: ["visits"] }));
		await runner.renameColumn("customers", "ssn", "tax_number");
	}

	async down(runner) {
		await runner.renameColumn("customers", "tax_number", "ssn");
		await runner.dropIndex("customers", "by_visits");
		await runner.dropColumn("customers", "phone");
	}
}

module.exports = { Tenant, Customer, NextCustomer, Order, NextRelease: NextRelease1700000000000 };

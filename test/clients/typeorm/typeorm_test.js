// TypeORM over node-postgres: migrations, repositories, query builder, upserts.
// It knows nothing of protection: typeorm_test.js migrate|work|look

require("reflect-metadata");
const { Between, DataSource, In, IsNull, Like, Not, Raw } = require("typeorm");
const { Tenant, Customer, NextCustomer, Order, NextRelease } = require("./shop");
const { ok, equal, raises, finish } = require("./tap");

async function open(entity, options = {}) {
	return new DataSource({
		type: "postgres", host: process.env.PGHOST, port: Number(process.env.PGPORT), username: "app",
		database: process.env.PGDATABASE, entities: [Tenant, entity, Order], ...options,
	}).initialize();
}

async function createAndRead(customers, tenant) {
	const { id } = await customers.save({
		tenantId: tenant.id, email: "anna@mail.example", ssn: "078-05-1120", born: "1984-02-29", balance: "12.50",
		profile: { tier: "gold", n: [1, null] }, labels: ["a", "ü"], mood: "happy",
		token: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", seen: new Date("2024-03-31T01:30:00Z"), scan: Buffer.from([0, 255]),
	});
	const anna = await customers.findOneByOrFail({ id });
	equal({ ...anna, scan: [...anna.scan] }, {
		id, tenantId: tenant.id, email: "anna@mail.example", ssn: "078-05-1120", born: "1984-02-29", balance: "12.50",
		profile: { tier: "gold", n: [1, null] }, labels: ["a", "ü"], mood: "happy",
		token: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", seen: new Date("2024-03-31T01:30:00Z"), scan: [0, 255],
		active: true, visits: 0, version: 1,
	}, "what was saved is read, in its types");
	return anna;
}

async function filter(customers, tenant) {
	const count = (where) => customers.countBy({ tenantId: tenant.id, ...where });
	equal(await count({ email: "anna@mail.example" }), 1, "filter by a searchable column");
	equal(await customers.countBy({ email: "anna@mail.example" }), 1, "without the tenant too");
	equal(await count({ email: In(["anna@mail.example", "x"]) }), 1, "IN");
	equal(await customers.countBy([{ tenantId: tenant.id, email: "x" }, { ssn: "078-05-1120" }]), 1, "OR with one that is not searchable");
	equal(await count({ ssn: Like("078%") }), 1, "LIKE");
	equal(await count({ born: Between("1980-01-01", "1990-01-01") }), 1, "BETWEEN");
	equal(await count({ profile: Raw((column) => `${column} ->> 'tier' = 'gold'`) }), 1, "key of a document");
	equal(await count({ labels: Raw((column) => `'ü' = ANY (${column})`) }), 1, "member of an array");
	equal(await count({ mood: "happy", token: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11" }), 1, "an enum, a uuid");
	equal(await count({ ssn: IsNull() }), 0, "IS NULL");
	equal(await count({ email: Not("anna@mail.example") }), 0, "NOT");
	const grouped = await customers.createQueryBuilder("c").leftJoin("c.orders", "o").select("c.email", "email")
		.addSelect("count(o.id)", "n").groupBy("c.id").orderBy("c.email").getRawMany();
	equal(grouped, [{ email: "anna@mail.example", n: "0" }], "grouped by the key");
	equal(await customers.sum("balance"), 12.5, "sum");
	const rows = await customers.query("SELECT * FROM customers WHERE tenant_id = $1 AND email = $2", [tenant.id, "anna@mail.example"]);
	equal(rows.map((row) => row.ssn), ["078-05-1120"], "a raw query of all columns");
}

async function update(source, customers, { id }) {
	const anna = await customers.findOneByOrFail({ id });
	anna.ssn = "219-09-9999";
	anna.profile.tier = "silver";
	await customers.save(anna);
	await customers.increment({ id }, "visits", 3);
	await customers.createQueryBuilder().update().set({ balance: () => "balance + 1", email: () => "'new.' || email" }).where({ id }).execute();
	const { affected, raw } = await customers.createQueryBuilder().update().set({ born: null }).where({ id }).returning(["email", "ssn"]).execute();
	equal([affected, raw], [1, [{ email: "new.anna@mail.example", ssn: "219-09-9999" }]], "RETURNING");
	await source.transaction(async (manager) => {
		const locked = await manager.findOne(Customer, { where: { id }, lock: { mode: "pessimistic_write", onLocked: "skip_locked" } });
		equal([locked.email, locked.ssn, locked.balance, locked.profile.tier, locked.visits, locked.born],
			["new.anna@mail.example", "219-09-9999", "13.50", "silver", 3, null], "updated from old values, and locked");
	});
}

async function bulk(customers, tenant) {
	const rows = (from, to, ssn) => Array.from({ length: to - from }, (_, n) => ({
		tenantId: tenant.id, email: `user${from + n}@mail.example`, ssn: ssn ?? String(from + n).padStart(3, "0") + "-00-0000" }));
	await customers.insert(rows(0, 500));
	equal(await customers.count(), 501, "bulk insert");
	await customers.upsert(rows(490, 510, "111-11-1111"), ["tenantId", "email"]);
	equal(await customers.countBy({ ssn: "111-11-1111" }), 20, "upsert on a protected unique column");
	await customers.createQueryBuilder().insert().values(rows(0, 10)).orIgnore().execute();
	equal(await customers.count(), 511, "conflicts ignored");
	await customers.createQueryBuilder().insert().values(rows(0, 5, "333-33-3333")).orUpdate(["ssn"], "one_address").execute();
	equal(await customers.countBy({ ssn: "333-33-3333" }), 5, "upsert by the constraint's name");
	const page = await customers.find({ order: { email: "DESC" }, skip: 10, take: 3 });
	equal(page.map((c) => c.email), ["user90@mail.example", "user8@mail.example", "user89@mail.example"], "a page, ordered by a protected column");
	let streamed = 0;
	for await (const row of await customers.createQueryBuilder("c").stream()) streamed += row.c_email ? 1 : 0;
	equal(streamed, 511, "streamed");
	equal((await customers.delete({ email: Like("user50%"), ssn: "111-11-1111" })).affected, 10, "bulk delete");
}

async function constraints(source, customers, tenant) {
	const error = await raises("23505", "a second row with the same address",
		() => customers.insert({ tenantId: tenant.id, email: "user1@mail.example" }));
	equal(error.driverError.constraint, "one_address", "by its old name");
	await raises("23502", "NOT NULL", () => customers.update({ email: "user1@mail.example" }, { email: null }));
	await raises("22001", "too long", () => customers.insert({ tenantId: tenant.id, email: "long@mail.example", ssn: "1".repeat(12) }));
	await raises("undone", "a transaction that fails", () => source.transaction(async (manager) => {
		await manager.insert(Customer, { tenantId: tenant.id, email: "undone@mail.example" });
		throw Object.assign(new Error(), { code: "undone" });
	}));
	equal(await customers.countBy({ email: "undone@mail.example" }), 0, "is rolled back");
}

async function related(source, customers, { id }) {
	const orders = source.getRepository(Order);
	await orders.save({ what: "book", customer: { id } });
	const [order] = await orders.find({ where: { customer: { email: "new.anna@mail.example" } }, relations: { customer: true } });
	equal([order.what, order.customer.ssn], ["book", "219-09-9999"], "joined, and loaded");
	await customers.delete({ id });
	equal(await orders.count(), 0, "deleted with what hangs on it");
}

async function nextRelease(tenant) {
	const source = await open(NextCustomer, { migrations: [NextRelease] });
	await source.runMigrations();
	const customers = source.getRepository("Customer");
	equal((await customers.findOneByOrFail({ ssn: "006-00-0000" })).phone, "-", "renamed by a migration, it is read");
	const { id } = await customers.save({ tenantId: tenant.id, email: "late@mail.example", ssn: "444-44-4444", phone: "1" });
	equal((await customers.findOneByOrFail({ id })).ssn, "444-44-4444", "and written");
	for (const { seen, scan, ...customer } of await customers.find({ order: { id: "ASC" } })) console.log("# " + JSON.stringify(customer));
	await source.destroy();
}

async function work() {
	const source = await open(Customer);
	const tenant = await source.getRepository(Tenant).save({ name: "acme" });
	const other = await source.getRepository(Tenant).save({ name: "other" });
	const customers = source.getRepository(Customer);
	const anna = await createAndRead(customers, tenant);
	await filter(customers, tenant);
	await update(source, customers, anna);
	await bulk(customers, tenant);
	await constraints(source, customers, tenant);
	await related(source, customers, anna);
	await customers.update({ email: "user7@mail.example" }, { tenantId: other.id });
	equal((await customers.findOneByOrFail({ tenantId: other.id, email: "user7@mail.example" })).ssn, "007-00-0000", "moved to another tenant");
	await source.destroy();
	await nextRelease(tenant);
}

// What of a protected table can be seen.
async function look() {
	const source = await open(NextCustomer);
	const customers = source.getRepository("Customer");
	const runner = source.createQueryRunner();
	const table = await runner.getTable("customers");
	ok(table.columns.some((column) => column.name === "email__sealed"), "the schema has the sidecars");
	const { upQueries } = await source.driver.createSchemaBuilder().log();
	console.log(upQueries.map(({ query }) => "# " + query).join("\n"));
	ok(upQueries.some(({ query }) => /DROP COLUMN "email__sealed"/.test(query)), "synchronize would drop them");
	await raises("0A000", "which is refused", () => source.synchronize());
	equal((await customers.findOneByOrFail({ email: "late@mail.example" })).ssn, "444-44-4444", "nothing is lost");
	await runner.release();
	await source.destroy();
}

async function migrate() {
	const source = await open(Customer);
	await source.synchronize();
	await source.destroy();
}

finish({ migrate, work, look }[process.argv[2]]);

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.time.*;
import java.util.*;
import java.util.function.*;
import java.util.stream.*;
import org.hibernate.*;
import org.hibernate.cfg.Configuration;
import org.hibernate.exception.ConstraintViolationException;
import org.postgresql.PGConnection;

/**
 * Hibernate over pgjdbc: schema, entities, HQL, upserts.  It knows nothing of
 * protection: HibernateTest migrate|work|look
 */
public class HibernateTest {
	static SessionFactory open(String schema, Class<?>... entities) {
		Configuration configuration = new Configuration();
		for (Class<?> entity : entities)
			configuration.addAnnotatedClass(entity);
		return configuration
			.setProperty("hibernate.connection.url", url())
			.setProperty("hibernate.connection.username", "app")
			.setProperty("hibernate.hbm2ddl.auto", schema)
			.setProperty("hibernate.jdbc.batch_size", "50")
			.setProperty("hibernate.jdbc.time_zone", "UTC")
			.setProperty("hibernate.order_inserts", "true")
			.buildSessionFactory();
	}

	/** The server has a socket of the file system only. */
	static String url() {
		return "jdbc:postgresql://localhost/" + System.getenv("PGDATABASE") + "?reWriteBatchedInserts=true&sslmode=disable"
			+ "&socketFactory=org.newsclub.net.unix.AFUNIXSocketFactory$FactoryArg&socketFactoryArg="
			+ System.getenv("PGHOST") + "/.s.PGSQL." + System.getenv("PGPORT");
	}

	static SessionFactory shop(String schema) { return open(schema, Shop.Tenant.class, Shop.Customer.class, Shop.Order.class); }

	static List<Object> values(Shop.Person c) {
		return Arrays.asList(c.id, c.email, c.ssn, c.born, c.balance, c.profile, c.labels == null ? null : List.of(c.labels),
			c.mood, c.token, c.seen, c.scan == null ? null : c.scan.length, c.active, c.visits);
	}

	static long createAndRead(SessionFactory factory, Shop.Tenant tenant) {
		Shop.Customer anna = new Shop.Customer(tenant, "anna@mail.example", "078-05-1120");
		anna.born = LocalDate.of(1984, 2, 29);
		anna.balance = new BigDecimal("12.50");
		anna.profile = Map.of("tier", "gold", "n", Arrays.asList(1, null));
		anna.labels = new String[] {"a", "ü"};
		anna.mood = Shop.Mood.HAPPY;
		anna.token = UUID.fromString("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
		anna.seen = Instant.parse("2024-03-31T01:30:00Z");
		anna.scan = new byte[] {0, -1};
		factory.inTransaction(session -> session.persist(anna));
		factory.inSession(session -> Tap.equal(values(session.find(Shop.Customer.class, anna.id)), values(anna),
			"what was saved is read, in its types"));
		return anna.id;
	}

	static void filter(SessionFactory factory, Shop.Tenant tenant) {
		factory.inSession(session -> {
			Function<String, Object> count = where -> session.createSelectionQuery(
				"select count(*) from Customer c where c.tenant = :t and " + where, Long.class).setParameter("t", tenant.id).getSingleResult();
			Tap.equal(count.apply("email = 'anna@mail.example'"), 1L, "filter by a searchable column");
			Tap.equal(count.apply("email in ('anna@mail.example', 'x')"), 1L, "IN");
			Tap.equal(count.apply("(email = 'x' or ssn = '078-05-1120')"), 1L, "OR with one that is not searchable");
			Tap.equal(count.apply("ssn like '078%'"), 1L, "LIKE");
			Tap.equal(count.apply("lower(email) = 'anna@mail.example'"), 1L, "a function");
			Tap.equal(count.apply("year(born) = 1984"), 1L, "part of a date");
			Tap.equal(count.apply("mood = HAPPY"), 1L, "an enum");
			Tap.equal(count.apply("array_contains(labels, 'ü')"), 1L, "member of an array");
			Tap.equal(count.apply("ssn is null"), 0L, "IS NULL");
			Tap.equal(count.apply("balance > visits"), 1L, "compared with another column");
			Tap.equal(IntStream.range(0, 12).mapToObj(n -> session.createSelectionQuery(
				"select ssn from Customer where tenant = :t and email = :e", String.class).setParameter("t", tenant.id)
				.setParameter("e", n % 2 == 0 ? "anna@mail.example" : "x").getResultList().size()).toList(),
				IntStream.range(0, 12).mapToObj(n -> 1 - n % 2).toList(), "one statement, many times");
			Tap.equal(session.createSelectionQuery("select upper(email), row_number() over (order by email) from Customer",
				Object[].class).getSingleResult(), new Object[] {"ANNA@MAIL.EXAMPLE", 1L}, "a window");
			Tap.equal(session.createSelectionQuery("select c.email, count(o) from Customer c left join c.orders o group by c.id",
				Object[].class).getSingleResult(), new Object[] {"anna@mail.example", 0L}, "grouped by the key");
			var builder = session.getCriteriaBuilder();
			var query = builder.createQuery(Shop.Customer.class);
			var root = query.from(Shop.Customer.class);
			query.where(builder.equal(root.get("tenant"), tenant.id), builder.equal(root.get("email"), "anna@mail.example"));
			Tap.equal(session.createQuery(query).getSingleResult().ssn, "078-05-1120", "a criteria query");
			Tap.equal(session.createNativeQuery("select * from customers", Shop.Customer.class).getSingleResult().ssn, "078-05-1120",
				"a native query of all columns");
		});
	}

	static void update(SessionFactory factory, long key) {
		factory.inTransaction(session -> {
			Shop.Customer anna = session.find(Shop.Customer.class, key);
			anna.ssn = "219-09-9999";
			anna.profile.put("tier", "silver");
			anna.visits = 3;
		});
		factory.inTransaction(session -> Tap.equal(session.createMutationQuery(
			"update Customer set balance = balance + 1, email = 'new.' || email where id = :id").setParameter("id", key).executeUpdate(),
			1, "a bulk update"));
		factory.inTransaction(session -> {
			Shop.Customer anna = session.createSelectionQuery("from Customer where id = :id", Shop.Customer.class)
				.setParameter("id", key).setHibernateLockMode(LockMode.UPGRADE_SKIPLOCKED).getSingleResult();
			Tap.equal(Arrays.asList(anna.email, anna.ssn, anna.balance, anna.profile.get("tier"), anna.visits),
				Arrays.asList("new.anna@mail.example", "219-09-9999", new BigDecimal("13.50"), "silver", 3), "updated, and locked");
		});
		factory.inTransaction(session -> {
			Shop.Customer anna = session.find(Shop.Customer.class, key);
			session.detach(anna);
			anna.born = null;
			session.merge(anna);
		});
		factory.inSession(session -> Tap.equal(session.find(Shop.Customer.class, key).born, null, "made NULL, detached and merged"));
		Tap.raises(OptimisticLockException(), "an update of what another has updated", () -> factory.inTransaction(session -> {
			Shop.Customer anna = session.find(Shop.Customer.class, key);
			factory.inTransaction(other -> other.find(Shop.Customer.class, key).ssn = "1");
			anna.ssn = "2";
		}));
	}

	static Class<? extends Exception> OptimisticLockException() { return jakarta.persistence.OptimisticLockException.class; }

	static void bulk(SessionFactory factory, Shop.Tenant tenant) {
		factory.inTransaction(session -> IntStream.range(0, 500).forEach(n ->
			session.persist(new Shop.Customer(tenant, "user" + n + "@mail.example", String.format("%03d-00-0000", n)))));
		factory.inSession(session -> Tap.equal(count(session), 501L, "bulk insert"));
		factory.inTransaction(session -> {
			int rows = 0;
			for (int n = 495; n < 505; n++)
				rows += session.createMutationQuery("insert into Customer (tenant, email, ssn, active, visits, version)"
					+ " values (:t, :e, '111-11-1111', true, 0, 0)"
					+ " on conflict (tenant, email) do update set ssn = excluded.ssn, visits = visits + 1")
					.setParameter("t", tenant.id).setParameter("e", "user" + n + "@mail.example").executeUpdate();
			Tap.equal(rows, 10, "upsert on a protected unique column");
			Tap.equal(session.createSelectionQuery("select sum(visits) from Customer where ssn = '111-11-1111'", Long.class)
				.getSingleResult(), 5L, "half of them were there");
			Tap.equal(session.createMutationQuery("insert into Customer (tenant, email, active, visits, version)"
				+ " values (:t, 'user1@mail.example', true, 0, 0) on conflict on constraint one_address do nothing")
				.setParameter("t", tenant.id).executeUpdate(), 0, "conflict by the constraint's name, ignored");
		});
		factory.inStatelessSession(session -> {
			session.beginTransaction();
			Shop.Customer one = session.createSelectionQuery("from Customer where email = 'user1@mail.example'", Shop.Customer.class)
				.getSingleResult();
			one.ssn = "222-22-2222";
			session.upsert(one);
			session.getTransaction().commit();
			Tap.equal(session.get(Shop.Customer.class, one.id).ssn, "222-22-2222", "upsert by key");
		});
		factory.inSession(session -> {
			var scroll = session.createSelectionQuery("from Customer order by email", Shop.Customer.class).setFetchSize(50).scroll(ScrollMode.FORWARD_ONLY);
			int rows = 0;
			while (scroll.next())
				rows++;
			Tap.equal(rows, 506, "a cursor, ordered by a protected column");
		});
		factory.inTransaction(session -> Tap.equal(session.createMutationQuery(
			"delete from Customer where email like 'user50%' and ssn = '111-11-1111'").executeUpdate(), 5, "bulk delete"));
	}

	static long count(Session session) { return session.createSelectionQuery("select count(*) from Customer", Long.class).getSingleResult(); }

	static void constraints(SessionFactory factory, Shop.Tenant tenant) {
		Exception error = Tap.raises(ConstraintViolationException.class, "a second row with the same address",
			() -> factory.inTransaction(session -> session.persist(new Shop.Customer(tenant, "user1@mail.example", null))));
		Tap.equal(((ConstraintViolationException) error).getConstraintName(), "one_address", "by its old name");
		error = Tap.raises(ConstraintViolationException.class, "NOT NULL", () -> factory.inTransaction(session ->
			session.createNativeMutationQuery("update customers set email = null where email = 'user1@mail.example'").executeUpdate()));
		Tap.equal(((ConstraintViolationException) error).getSQLState(), "23502", "by its code");
		error = Tap.raises(ConstraintViolationException.class, "CHECK", () -> factory.inTransaction(session ->
			session.createNativeMutationQuery("update customers set mood = 'NONE' where email = 'user1@mail.example'").executeUpdate()));
		Tap.equal(((ConstraintViolationException) error).getConstraintName(), "customers_mood_check", "by its old name");
		Tap.raises(org.hibernate.exception.DataException.class, "too long", () -> factory.inTransaction(session ->
			session.persist(new Shop.Customer(tenant, "long@mail.example", "1".repeat(12)))));
	}

	static void related(SessionFactory factory, long key) {
		factory.inTransaction(session -> session.persist(new Shop.Order(session.find(Shop.Customer.class, key), "book")));
		factory.inSession(session -> {
			Tap.equal(session.createSelectionQuery("select o.what from Order o where o.customer.email = 'new.anna@mail.example'",
				String.class).getResultList(), List.of("book"), "filtered through a relation");
			Tap.equal(session.createSelectionQuery("from Customer c join fetch c.orders", Shop.Customer.class).getSingleResult().orders.size(),
				1, "fetched with what hangs on it");
		});
		factory.inTransaction(session -> session.remove(session.find(Shop.Customer.class, key)));
		factory.inSession(session -> Tap.equal(session.createSelectionQuery("select count(*) from Order", Long.class).getSingleResult(),
			0L, "deleted with it"));
	}

	/** pgjdbc's own ways, below Hibernate. */
	static void driver(SessionFactory factory, Shop.Tenant tenant) {
		factory.inTransaction(session -> session.doWork(connection -> {
			try {
				var copy = connection.unwrap(PGConnection.class).getCopyAPI();
				Tap.equal(copy.copyIn("COPY customers (id, tenant_id, email, ssn, active, visits, version) FROM STDIN",
					new StringReader("100000\t" + tenant.id + "\tcopied@mail.example\t333-33-3333\tt\t0\t0\n")), 1L, "COPY in");
				StringWriter out = new StringWriter();
				copy.copyOut("COPY (SELECT * FROM customers WHERE email = 'copied@mail.example') TO STDOUT", out);
				Tap.ok(out.toString().contains("\t333-33-3333\t"), "COPY out", out);
				System.out.print("# " + out);
			} catch (java.io.IOException error) {
				throw new IllegalStateException(error);
			}
			try (var statement = connection.createStatement(java.sql.ResultSet.TYPE_SCROLL_INSENSITIVE, java.sql.ResultSet.CONCUR_UPDATABLE);
				var rows = statement.executeQuery("SELECT * FROM customers WHERE email = 'copied@mail.example'")) {
				rows.next();
				rows.updateString("ssn", "444-44-4444");
				rows.updateRow();
			}
			try (var rows = connection.createStatement().executeQuery("SELECT ssn FROM customers WHERE id = 100000")) {
				rows.next();
				Tap.equal(rows.getString(1), "444-44-4444", "an updatable result set");
			}
		}));
	}

	static void nextRelease(Shop.Tenant tenant) {
		try (SessionFactory factory = open("update", Shop.Tenant.class, Shop.NextCustomer.class)) {
			factory.inTransaction(session -> {
				Shop.NextCustomer late = new Shop.NextCustomer();
				late.tenant = tenant.id;
				late.email = "late@mail.example";
				late.phone = "1";
				session.persist(late);
				session.flush();
				session.clear();
				Tap.equal(session.find(Shop.NextCustomer.class, late.id).phone, "1", "a column is added, written and read");
			});
			factory.inSession(session -> session.createSelectionQuery("from Customer order by email", Shop.NextCustomer.class)
				.getResultList().forEach(c -> System.out.println("# " + values(c) + c.phone)));
		}
	}

	static void work() {
		Shop.Tenant tenant = new Shop.Tenant("acme"), other = new Shop.Tenant("other");
		try (SessionFactory factory = shop("validate")) {
			Tap.ok(true, "the schema is as the entities want it");
			factory.inTransaction(session -> {
				session.persist(tenant);
				session.persist(other);
			});
			long anna = createAndRead(factory, tenant);
			filter(factory, tenant);
			update(factory, anna);
			bulk(factory, tenant);
			constraints(factory, tenant);
			related(factory, anna);
			driver(factory, tenant);
			factory.inTransaction(session -> session.createSelectionQuery("from Customer where email = 'user2@mail.example'",
				Shop.Customer.class).getSingleResult().tenant = other.id);
			factory.inSession(session -> Tap.equal(session.createSelectionQuery("select ssn from Customer where tenant = :t", String.class)
				.setParameter("t", other.id).getSingleResult(), "002-00-0000", "moved to another tenant"));
		}
		nextRelease(tenant);
	}

	/** What of a protected table can be seen. */
	static void look() {
		try (SessionFactory factory = shop("validate")) {
			factory.inSession(session -> session.doWork(connection -> {
				List<String> columns = new ArrayList<>();
				try (var rows = connection.getMetaData().getColumns(null, null, "customers", null)) {
					while (rows.next())
						columns.add(rows.getString("COLUMN_NAME"));
				}
				Tap.ok(columns.contains("email__sealed"), "JDBC's metadata shows the sidecars", columns);
				try (var rows = connection.createStatement().executeQuery("SELECT * FROM customers LIMIT 1")) {
					var data = rows.getMetaData();
					List<String> own = new ArrayList<>();
					for (int i = 1; i <= data.getColumnCount(); i++)
						own.add(data.getColumnName(i));
					Tap.equal(own, columns.stream().filter(c -> !c.matches(".*__(sealed|term)")).toList(), "those of a result do not");
					Tap.equal(data.getPrecision(own.indexOf("ssn") + 1), 11, "and have their types");
				}
			}));
		}
	}

	public static void main(String[] arguments) {
		Tap.finish(() -> {
			switch (arguments[0]) {
				case "migrate" -> shop("create").close();
				case "work" -> work();
				default -> look();
			}
		});
	}
}

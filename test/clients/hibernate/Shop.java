import jakarta.persistence.*;
import java.math.BigDecimal;
import java.time.*;
import java.util.*;
import org.hibernate.annotations.JdbcTypeCode;
import org.hibernate.type.SqlTypes;

/** What the shop stores. */
class Shop {
	enum Mood { SAD, HAPPY }

	@Entity(name = "Tenant")
	@Table(name = "tenants")
	static class Tenant {
		@Id
		@GeneratedValue(strategy = GenerationType.IDENTITY)
		Long id;
		@Column(nullable = false)
		String name;

		Tenant() {}

		Tenant(String name) { this.name = name; }
	}

	@MappedSuperclass
	abstract static class Person {
		@Id
		@GeneratedValue(strategy = GenerationType.SEQUENCE, generator = "customers_seq")
		@SequenceGenerator(name = "customers_seq", allocationSize = 50)
		Long id;
		@Column(name = "tenant_id", nullable = false)
		Long tenant;
		@Column(nullable = false)
		String email;
		@Column(length = 11)
		String ssn;
		LocalDate born;
		@Column(precision = 12, scale = 2)
		BigDecimal balance;
		@JdbcTypeCode(SqlTypes.JSON)
		Map<String, Object> profile;
		String[] labels;
		@Enumerated(EnumType.STRING)
		Mood mood;
		UUID token;
		Instant seen;
		byte[] scan;
		boolean active = true;
		int visits;
		@Version
		int version;
	}

	@Entity(name = "Customer")
	@Table(name = "customers", uniqueConstraints = @UniqueConstraint(name = "one_address", columnNames = {"tenant_id", "email"}))
	static class Customer extends Person {
		@OneToMany(mappedBy = "customer", cascade = CascadeType.ALL, orphanRemoval = true)
		List<Order> orders = new ArrayList<>();

		Customer() {}

		Customer(Tenant tenant, String email, String ssn) {
			this.tenant = tenant.id;
			this.email = email;
			this.ssn = ssn;
		}
	}

	@Entity(name = "Order")
	@Table(name = "orders")
	static class Order {
		@Id
		@GeneratedValue(strategy = GenerationType.IDENTITY)
		Long id;
		@ManyToOne(fetch = FetchType.LAZY, optional = false)
		Customer customer;
		String what;

		Order() {}

		Order(Customer customer, String what) {
			this.customer = customer;
			this.what = what;
		}
	}

	/** The next release's: one column more, and an index. */
	@Entity(name = "Customer")
	@Table(name = "customers", indexes = @Index(name = "by_visits", columnList = "visits"))
	static class NextCustomer extends Person {
		String phone;
	}
}

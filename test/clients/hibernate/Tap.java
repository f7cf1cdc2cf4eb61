import java.util.Objects;

/** TAP, and the end of a test. */
class Tap {
	interface Work { void run() throws Exception; }

	private static int count;

	static void ok(boolean passed, String what, Object... details) {
		System.out.println((passed ? "ok " : "not ok ") + ++count + " - " + what);
		for (Object detail : passed ? new Object[0] : details)
			System.out.println("#   " + detail);
	}

	static void equal(Object got, Object expected, String what) {
		ok(Objects.deepEquals(got, expected), what, "got " + got, "expected " + expected);
	}

	/** The error, for a look at it. */
	static Exception raises(Class<? extends Exception> kind, String what, Work work) {
		try {
			work.run();
		} catch (Exception error) {
			ok(kind.isInstance(error), what, "raised " + error);
			return error;
		}
		ok(false, what, "raised nothing");
		return null;
	}

	static void finish(Work work) {
		try {
			work.run();
		} catch (Throwable error) {
			ok(false, "it ran to its end", error, error.getCause());
			for (StackTraceElement element : error.getStackTrace())
				if (element.getClassName().startsWith("HibernateTest"))
					System.out.println("#   " + element);
		}
	}
}

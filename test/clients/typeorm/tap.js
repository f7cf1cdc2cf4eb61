// TAP, and the end of a test.

const { isDeepStrictEqual, inspect } = require("node:util");

let count = 0;

function ok(passed, what, ...details) {
	console.log(`${passed ? "ok" : "not ok"} ${++count} - ${what}`);
	if (!passed) details.forEach((detail) => console.log("#   " + detail));
}

function equal(got, expected, what) {
	ok(isDeepStrictEqual(got, expected), what, "got " + inspect(got), "expected " + inspect(expected));
}

// The error, for a look at it.
async function raises(code, what, work) {
	try {
		await work();
	} catch (error) {
		equal(error.driverError?.code ?? error.code, code, what);
		return error;
	}
	ok(false, what, "raised nothing");
	return undefined;
}

async function finish(work) {
	try {
		await work();
	} catch (error) {
		ok(false, "it ran to its end", ...error.stack.split("\n"));
	}
	// A connection that was left open would keep it.
	process.exit();
}

module.exports = { ok, equal, raises, finish };

# TAP, and the end of a test.

$count = 0

def ok(passed, what, *details)
  puts "#{passed ? 'ok' : 'not ok'} #{$count += 1} - #{what}"
  details.each { |detail| puts "#   #{detail}" } unless passed
end

def equal(got, expected, what)
  ok got == expected, what, "got #{got.inspect}", "expected #{expected.inspect}"
end

# The error, for a look at it.
def raises(kind, what)
  yield
  ok false, what, "raised nothing"
rescue kind => error
  ok true, what
  error
end

def finish
  yield
rescue Exception => error
  ok false, "it ran to its end", error.full_message(highlight: false).gsub("\n", "\n#   ")
end

-- Prints what wrk counted, one number a line: requests, microseconds, bytes, errors, p99 in us.
done = function(summary, latency)
  local errors = summary.errors
  print("counted")
  print(summary.requests)
  print(summary.duration)
  print(summary.bytes)
  print(errors.connect + errors.read + errors.write + errors.status + errors.timeout)
  print(latency:percentile(99))
end

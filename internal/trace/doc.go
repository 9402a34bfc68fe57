// Package trace carries the identity of a request through everything that it causes while its caller waits.
//
//	traceparent ──▶ door ──▶ context ──▶ request between nodes ──▶ the leader's node
//	   or drawn       └─ answer: Trace-Id       each log line about it has trace=…
//
// It is W3C Trace Context, of which only the trace's ID matters here: https://www.w3.org/TR/trace-context/. What the request leaves behind, the
// order's saga, goes on without it: state machines know no trace, and their outbox outlives the request.
package trace

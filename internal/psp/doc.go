// Package psp is a simulated payment provider: a real HTTP server with a durable ledger, for development, tests and audits.
//
//	POST /v1/operations       a list of calls, answered one by one; each is carried out once per key
//	GET  /v1/operations/KEY   the row of one operation
//	GET  /v1/ledger           every operation that was carried out or declined, in order: ?after=SEQ&limit=N
//	GET  /v1/totals           their sums
//	GET, PUT /v1/behavior     how it misbehaves, changed in part: latency, declines, timeouts after success, errors, callbacks late and twice
//	GET  /readyz
//
// What it has answered, and what it shows of its ledger, is on disk first: many operations share one sync. It is the
// outside truth about charges, and an audit compares the cluster with it. So it is as naive as a real provider: it knows keys, not
// payments, and a second authorization of a payment under another key is a second charge.
//
// The same key with the same body has the same answer for good; one that comes while the first is being written waits for it.
// With another body the answer is a conflict, and nothing is done.
//
// When told to, it reports each operation to a callback URL, such as a node's POST /v1/callbacks/psp, with the body
// {"payment_id", "operation", "type"}: the operation's key and kind. Callbacks promise nothing, like those of real providers: they
// may be early, late, twice or never.
package psp

// Package psp is a simulated payment provider: a real HTTP server with a durable ledger, for development, tests and audits.
//
//	POST /v1/operations      a list of calls, answered one by one; each is carried out once per key
//	GET  /v1/ledger          every operation that was carried out or declined, in order
//	GET, PUT /v1/behavior    how it misbehaves: latency, declines, timeouts after success, errors, duplicate callbacks
//
// What it has answered is on disk first. It is the outside truth about charges: an audit compares the cluster with it.
package psp

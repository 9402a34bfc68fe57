// Package rest is the HTTP door: JSON in, JSON out, described by OpenAPI 3.1.
//
//	request ──▶ mux ──▶ bounds, deadline, request ID ──▶ handler ──▶ Backend (a *node.Client)
//	             ▲                                         │  ▲
//	     routes: the table                        parser ◀─┘  └─ encoder ──▶ answer, or a problem (RFC 9457)
//	             └──▶ /openapi.json, /docs
//
// The table in routes.go is the API: the mux, the description, the pages and the tests read it. Bodies are read and written by
// hand, for speed and to name the offending member; types.go says what they look like, and tests hold the code to it.
//
// A [Server] reads what most clients send to place an order itself; everything else comes through net/http.
//
// What holds for every request:
//   - The door keeps no state: any node answers, and what must be remembered (idempotency keys, orders) is in the shards.
//   - Nothing is asked of a shard before the whole request is known to be well-formed; a mistake costs no log entry.
//   - It is bounded in number, size and time. At the bound it is refused with Retry-After: nothing waits in line here.
//   - Its answer is final, or has Retry-After and is safe to repeat with the same Idempotency-Key.
package rest

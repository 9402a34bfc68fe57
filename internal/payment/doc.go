// Package payment decides what happens to the money of an order: which operation at the provider comes next, and what an
// answer, or the lack of one, means.
//
// A payment holds amounts, not flags. Each operation (captures, void, refunds) is logged before it is sent and runs alone, in
// the order of request. An authorization may be sent before, see [First]: then it is logged with its answer.
//
//	           send                  succeeded / declined
//	PENDING ─────────▶ SENT ────────────────────────────────▶ SUCCEEDED / DECLINED
//	   │                │ ▲                                        ▲
//	   │        unknown │ │ not found: same key again              │
//	   │                ▼ │                                        │
//	   │              UNKNOWN ──── asked by key, with backoff ─────┘
//	   ▼
//	CANCELED (never sent: nothing to do, or a void came first)
//
// An operation has one idempotency key at the provider for all its life, [Key]. That is why a card is never charged
// twice: whatever is repeated is repeated under the same key. What an operator says has happened elsewhere is recorded as an operation too, with
// who said it ([IsResolved]), and never sent. [Status] is derived, and [Transitions] lists how it moves; a
// decision that leads elsewhere stops the process.
//
// Invariants: requested >= authorized >= captured >= refunded >= 0; voided is 0 or authorized - captured; each
// amount is the sum of the operations that succeeded; at most one operation is SENT or UNKNOWN.
//
// The package is pure. Times are milliseconds since 1970 UTC and come in with the command. [Provider] is what
// carries the calls out.
package payment

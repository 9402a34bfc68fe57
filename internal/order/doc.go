// Package order is the life of an order: which commands it accepts, which events follow, what they make of it.
//
//	            stock held            authorized             all fulfilled
//	PLACING ───────────────▶ AWAITING ───────────▶ CONFIRMED ───────────────▶ FULFILLED
//	   │                     PAYMENT                │  │ ▲  PARTIALLY_FULFILLED  ▲
//	   │ refused, declined      │                   │  └─┼────────┘ └─ capture ───┘ rest canceled
//	   ├──▶ REJECTING ─────▶ REJECTED               │    ▼              failed ▶ ON_HOLD
//	   ├──▶ EXPIRING ──────▶ EXPIRED                │
//	   └──▶ CANCELING ─────▶ CANCELED ◀── CANCELING ┘ (nothing fulfilled yet)
//
// Events are the truth. A Decide function looks at an order and a command and returns the events that follow, or
// a rejection; it changes nothing. Fold, the only function that changes an order, adds one event to it. So an order is the
// fold of its events, at any version of its history. The table of [Transitions] says which events may come in
// which state and where they lead; Fold stops the program when an event breaks it.
//
// Reserving, paying and undoing take many steps in other services. Package saga turns events into those
// commands; what came of them is decided here too (StockHeld, PaymentDeclined, ...). An answer that
// comes too late changes nothing: an order that is being undone is never resurrected.
//
// Invariants, for every order at every version:
//   - each line: canceled + fulfilled <= quantity, returned <= fulfilled;
//   - money: refunded <= refund_requested <= capture_requested <= authorized <= total, captured <= capture_requested;
//   - an order that ended (rejected, canceled, expired) holds no stock and no money.
//
// The package is pure: no clock, no randomness, no storage. Times are milliseconds since 1970 UTC, amounts minor units.
package order

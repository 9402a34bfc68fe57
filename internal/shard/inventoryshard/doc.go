// Package inventoryshard keeps one shard of the stock: it gives package inventory its tables, timers and messages.
//
//	order shard ── Reserve, Allocate, Release, Fulfill, Restock ─▶ inventory.* ─▶ items, holds
//	     ▲                                                            │
//	     └────────── AskHold ◀── hold is due ◀── timer ◀──────────────┘
//	                    └─ keep: the timer again    release: inventory.Unwanted
//
// Only held holds with a due time have a timer. A free-standing hold expires when it is due. For an order's hold the order
// is asked, as often as it takes, and the hold stays until it answers: a refusal is no answer.
//
// A tentative hold has its question in the outbox from the beginning, to leave after a while, and no timer.
//
// Receipts and adjustments are numbered and kept, so that an audit can add them up.
//
// Invariants: a hold that is HELD and has a due time has a timer or an unanswered AskHold, a TENTATIVE one has an AskHold; no other hold has a timer.
package inventoryshard

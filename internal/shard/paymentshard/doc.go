// Package paymentshard replicates package payment: it keeps the payments of a shard in a table, puts calls for the provider
// into the outbox in the entry that logs them, and feeds the answers back.
//
//	Command ──▶ payment.Decide ──▶ table row + outbox message to shard.PSP      (one entry)
//	                                            │ delivered after commit
//	KindReply ─▶ payment.Answer ◀───────────────┘ ProviderAnswer
//
// Invariants: a payment has at most one message in the outbox; a message exists exactly while an operation is
// SENT or UNKNOWN; the index of stuck payments names those, and only those, with a stuck operation.
package paymentshard

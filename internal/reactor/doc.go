// Package reactor delivers the outboxes of the shards that a node leads: there is one mechanism for
// "something must happen because something happened".
//
//	applied entry ──emitted──▶ lane (destination, key) ──▶ Deliver ──▶ another shard, a provider
//	     ▲                        one in flight, in order                        │
//	     └──── KindReply ◀── Propose ◀──────────────── Answered ◀────────────────┘
//
// A message is delivered at least once until its reply is applied, which ends it in the same entry
// that takes the reply's effect. A new leader starts from the outbox in the shard's state, so nothing
// is lost with the old one; receivers are idempotent, so nothing happens twice. Failed deliveries are tried again after growing pauses, or soon
// when a destination that was away answers again. What is stuck because its receiver has not finished is asked about more often, as long as it is little.
//
// Messages about one object to one destination go one after the other, in the order they were emitted: a
// fulfillment never overtakes its allocation. Different objects never wait for each other. Across destinations one
// thing waits: an order's authorization, until all its reserves have been answered that the stock is held. What is known of the
// attempts before is in [Delivery.Payload]: a void says whether its authorization may have left. An answer that says what the
// shard knows already does not hurry. A reserve that has left tentatively, before its order was on record, need not leave again, or not at once:
// see [Reactor.Early].
//
// The package is a step machine: no goroutines, no clock, no randomness of its own. Time and
// random numbers are passed in; package node executes the actions, and so does a simulator.
package reactor

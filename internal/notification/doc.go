// Package notification is the policy of webhooks: what a receiver is sent, when, how it is signed, and what becomes of failures.
//
//	feed ─ Offer ─▶ window ─┐                 ┌─ accepted: the next one of its order; the cursor moves on
//	                        ├─▶ Take ─▶ Done ─┼─ failed: parked with its order's later events, tried again over three days
//	        parked, and due ┘                 └─ nothing gets through: the receiver rests and gets one delivery at a time
//
// Deliveries follow the Standard Webhooks specification, version 1: three headers, webhook-id, webhook-timestamp and
// webhook-signature, of which the last is "v1," and the base64 of HMAC-SHA256 over "id.timestamp.body".
//
// The package is pure. The node that leads the notification shard makes the deliveries; the shard keeps the record.
//
// Invariants: an event is delivered only when all earlier ones of its order are accepted; the recorded cursor passes only what is
// accepted, unwanted, or parked on record.
package notification

// Package notificationshard keeps the webhook receivers and how far each is through the feeds of the order shards.
//
//	feed of an order shard:  1 2 3 4 5 6 7 8 9 …
//	                             ▲   ▲
//	                        parked  cursor: all up to it are delivered, or parked and tried again
//
// Deliveries are not in it: a receiver's cursor says what it has, and the feed has the rest. What failed and is tried again is
// parked behind the cursor, so that one event that a receiver cannot take does not hold up the others. Package notification
// decides what is delivered when; the leader's node delivers and reports with Advance.
//
// Invariants: a cursor never goes back; a receiver with more than MaxParked events parked is disabled; what is parked of one shard
// is in order of position, each position once.
package notificationshard

// Package ordershard is the order service's shard: orders, their histories and their sagas.
//
//	command, answer, deadline ──▶ package order decides ──▶ events ──▶ feed (the truth)
//	                                                          │
//	                                                          ├──▶ fold: the stored order
//	                                                          └──▶ package saga: messages to other shards
//
// All of it is one entry of the log: an event, the order it leads to and the commands that follow are never apart.
//
// An ID that has a timer and no order has lapsed: the inventory has asked about it, and was told that there is no such order.
//
// Tables: o the orders, each with where its events are in the feed; c customers' orders, newest first; s the orders with a stuck
// step.
//
// Invariant: an order whose saga has not ended has a message in the outbox, so the outbox is the index of those.
package ordershard

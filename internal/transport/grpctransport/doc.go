// Package grpctransport is the network between the nodes of a real cluster: gRPC streams that carry frames of messages.
//
//	Send ─▶ queue (bounded in bytes) ─▶ sender: take all, encode, send ──── stream ────▶ receiver: decode, check ─▶ Handler
//	        one per peer and class       one goroutine, one connection       HTTP/2       one per peer and class
//
// Each node dials its peers, and messages flow from the dialling node to the other; answers take the other node's stream. Each class
// has its own connection, for streams of one connection share its window and a snapshot would hold up heartbeats.
// A sender takes all that is queued into one frame, so batches grow with the load and an idle
// stream sends at once. There is no generated code: the frame format (frame.go) is written by hand.
//
// A stream opens with metadata that says which cluster, node, class, protocol and process it comes from, and to which node; the
// receiver refuses what does not match, and the reason shows in [Transport.Peers].
//
// When an attempt to connect fails or a stream breaks, it is repeated after 50 ms to 2 s. What was queued before the
// failure before that is dropped: Raft repeats itself, and callers have given up by then.
//
// Invariants: a handler gets only messages that pass [transport.Message.Check], from one stream for each peer and class at a
// time, in the order they were sent; a stream is closed at its first malformed frame; New starts nothing, Run owns every goroutine.
package grpctransport

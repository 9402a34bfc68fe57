// Package transport is the contract of the network between nodes: messages that may be lost, delayed,
// duplicated or reordered, but never altered or handed to another node.
//
//	Send ──▶ bounded queue per peer and class ──▶ one stream ──▶ Handler of the receiver
//
// Sending never blocks. A sender takes everything queued for a peer as one frame, so batches grow with
// the load without a timer. transport/grpctransport is for production, transport/memtransport for tests
// and the simulator; both pass transport/transporttest.
package transport

import (
	"go.etcd.io/raft/v3/raftpb"
)

// NodeID numbers a node of a cluster, from 1. It is never reused.
type NodeID uint64

// Class separates traffic that must not wait for each other: each has its own connection and queue.
type Class uint8

const (
	// Raft carries consensus messages and heartbeats.
	Raft Class = iota
	// Call carries requests between nodes and their answers.
	Call
	// Bulk carries snapshots.
	Bulk
	// Classes is the number of classes.
	Classes
)

// Kind says what a message is.
type Kind uint8

const (
	// KindRaft: Raft is set, Group and the replica numbers say whose it is.
	KindRaft Kind = iota + 1
	// KindRequest: Body is a request; the answer carries the same ID.
	KindRequest
	// KindResponse: Body answers the request with this ID.
	KindResponse
	// KindSnapshot: Body is a piece of the snapshot stream ID of Group.
	KindSnapshot
	// KindHeartbeat: Body asks whether the receiver is well, KindHeartbeatAnswer: Body says how.
	KindHeartbeat
	KindHeartbeatAnswer
)

// MaxBodyBytes bounds Body; a larger message is dropped and counted by the sender.
const MaxBodyBytes = 8 << 20

// Message is what travels. It must not be changed once sent or received; Raft entries in
// particular are shared with the log.
type Message struct {
	Kind Kind
	// Group is the Raft group, a shard.ID, of KindRaft and KindSnapshot.
	Group uint32
	// FromReplica and ToReplica are replica numbers within Group.
	FromReplica, ToReplica uint64
	// ID connects a response with its request, and the pieces of a snapshot.
	ID uint64
	// Raft is the message of KindRaft.
	Raft *raftpb.Message
	// Body is the content of the other kinds.
	Body []byte
}

// Handler receives the messages of one frame, in the order they were sent. It must not block for
// long and must not keep the slice itself (the messages it may keep). It is called concurrently for
// different peers and classes.
type Handler func(from NodeID, class Class, messages []Message)

// Transport sends messages to peers. All methods may be used concurrently.
type Transport interface {
	// Send queues m for node to and reports whether it was accepted: false when the peer is unknown or its
	// queue is full (bounded in bytes). Accepted messages may still be lost.
	Send(to NodeID, class Class, m Message) bool
	// SetPeers replaces the table of addresses. Streams to peers that are gone or moved are closed.
	SetPeers(addresses map[NodeID]string)
}

// Peer says how the connection to a peer fares, for health and status pages.
type Peer struct {
	ID        NodeID
	Connected bool
	// Err is why the last attempt failed; empty when connected.
	Err string
	// Refused says that the peer answered, and wants nothing to do with this node; Stranger that somebody else answered at its address: of
	// another cluster, another number, or another protocol. Err has the reason.
	Refused, Stranger bool
	// Process is the incarnation that the streams lead to, or led to last; 0 before the first.
	Process uint64
	// Queued is the number of bytes waiting, SentBytes and Dropped count since start.
	Queued, SentBytes, Dropped uint64
}

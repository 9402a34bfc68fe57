package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/trace"
	"hanse/internal/transport"
)

// A request between nodes:
//
//	version | op | shard 4 | timeout ms 4 | trace 16, from version 2 on | op-specific
//	  propose: wait | command
//	  read:    consistency | at least 8 | payload
//	  status, recover (for the node itself): 0 | payload
//
// The highest bit of op asks the receiver to pass a propose or a read on to the shard's leader, if that is another node.
// The response: version | status | leader 8 | result. A request without a trace is written as version 1.
const (
	wireVersion   = 1
	tracedVersion = 2
	relayBit      = 0x80
)

type op uint8

const (
	opPropose op = 1
	opRead    op = 2
	opStatus  op = 3 // how are your replicas? The answer is a report.
	opRecover op = 4 // go on alone with your replica of the shard, under the number in the payload
)

type status uint8

const (
	statusResult status = iota
	statusNotLeader
	statusBusy
	statusUnknownOutcome
	statusUnavailable
	statusNoReplica
)

type request struct {
	op          op
	shard       shard.ID
	timeout     time.Duration
	trace       trace.ID // zero for none
	wait        bool
	command     shard.Command
	consistency replica.Consistency
	atLeast     uint64
	payload     []byte
	// relay says that the receiver may pass it on, once: the sender does not reach the leader.
	relay bool
	// repeatable is for the sender: the request may be given up and sent again.
	repeatable bool
	// patient is for the sender, too: a leader is waited for even while none can be reached.
	patient bool
}

func (r *request) append(dst []byte) []byte {
	version := byte(wireVersion)
	if !r.trace.IsZero() {
		version = tracedVersion
	}
	op := byte(r.op)
	if r.relay {
		op |= relayBit
	}
	dst = append(dst, version, op)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(r.shard))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(max(r.timeout.Milliseconds(), 0)))
	if version == tracedVersion {
		dst = append(dst, r.trace[:]...)
	}
	if r.op == opRead {
		dst = append(dst, byte(r.consistency))
		dst = binary.LittleEndian.AppendUint64(dst, r.atLeast)
		return append(dst, r.payload...)
	}
	if r.op != opPropose {
		return append(append(dst, 0), r.payload...)
	}
	wait := byte(0)
	if r.wait {
		wait = 1
	}
	return shard.AppendCommand(append(dst, wait), &r.command)
}

func decodeRequest(data []byte) (request, error) {
	if len(data) < 11 || data[0] != wireVersion && data[0] != tracedVersion {
		return request{}, errors.New("malformed request between nodes, or of another version")
	}
	r := request{
		op: op(data[1] &^ relayBit), relay: data[1]&relayBit != 0, shard: shard.ID(binary.LittleEndian.Uint32(data[2:])),
		timeout: time.Duration(binary.LittleEndian.Uint32(data[6:])) * time.Millisecond,
	}
	rest := data[10:]
	if data[0] == tracedVersion {
		if n := copy(r.trace[:], rest); n == len(rest) || r.trace.IsZero() {
			return request{}, errors.New("malformed trace in a request between nodes")
		}
		rest = rest[len(r.trace):]
	}
	flag, rest := rest[0], rest[1:]
	switch r.op {
	case opRead:
		if len(rest) < 8 || replica.Consistency(flag) > replica.Stale {
			return request{}, errors.New("malformed read request")
		}
		r.consistency, r.atLeast, r.payload = replica.Consistency(flag), binary.LittleEndian.Uint64(rest), rest[8:]
		return r, nil
	case opStatus, opRecover:
		if flag != 0 || r.relay {
			return request{}, errors.New("malformed request to a node")
		}
		r.payload = rest
		return r, nil
	case opPropose:
		c, tail, err := shard.DecodeCommand(rest)
		if err != nil || len(tail) > 0 || flag > 1 {
			return request{}, errors.New("malformed propose request")
		}
		r.wait, r.command = flag == 1, c
		return r, nil
	}
	return request{}, fmt.Errorf("unknown request operation %d", r.op)
}

func encodeResponse(r shard.Result, err error) []byte {
	st, leader := statusOf(err)
	dst := append(make([]byte, 0, 32+len(r.Payload)), wireVersion, byte(st))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(leader))
	return shard.AppendResult(dst, &r)
}

func statusOf(err error) (status, transport.NodeID) {
	var notLeader *replica.NotLeaderError
	switch {
	case err == nil:
		return statusResult, 0
	case errors.As(err, &notLeader):
		return statusNotLeader, notLeader.Leader
	case errors.Is(err, replica.ErrBusy):
		return statusBusy, 0
	case errors.Is(err, replica.ErrOutcomeUnknown):
		return statusUnknownOutcome, 0
	case errors.Is(err, replica.ErrNoReplica):
		return statusNoReplica, 0
	}
	return statusUnavailable, 0
}

// errUnavailable says that a node could not take the request; nothing happened.
var errUnavailable = errors.New("node: no answer from a replica that could serve the request")

func decodeResponse(id shard.ID, data []byte) (shard.Result, error) {
	if len(data) < 10 || data[0] != wireVersion {
		return shard.Result{}, replica.ErrOutcomeUnknown
	}
	leader := transport.NodeID(binary.LittleEndian.Uint64(data[2:]))
	r, rest, err := shard.DecodeResult(data[10:])
	if err != nil || len(rest) > 0 || leader != 0 && status(data[1]) != statusNotLeader {
		return shard.Result{}, replica.ErrOutcomeUnknown
	}
	switch status(data[1]) {
	case statusResult:
		return r, nil
	case statusNotLeader:
		return r, &replica.NotLeaderError{Shard: id, Leader: leader}
	case statusBusy:
		return r, replica.ErrBusy
	case statusUnavailable:
		return r, errUnavailable
	case statusNoReplica:
		return r, replica.ErrNoReplica
	}
	return r, replica.ErrOutcomeUnknown
}

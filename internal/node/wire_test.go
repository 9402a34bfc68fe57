package node

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"hanse/internal/cluster/health"
	"hanse/internal/replica"
	"hanse/internal/shard"
	"hanse/internal/trace"
)

func sampleRequests() []request {
	return []request{
		{op: opPropose, shard: shard.NewID(shard.Order, 2), timeout: 1500 * time.Millisecond, wait: true, command: shard.Command{
			Kind: shard.KindLogic, Tag: 9, Caller: "shop", Key: "k", RequestHash: 77, Payload: []byte("place"),
		}},
		{op: opPropose, shard: shard.NewID(shard.Payment, 0), command: shard.Command{Kind: shard.KindReply, Payload: []byte{}}},
		{op: opRead, shard: shard.NewID(shard.Keyspace, 0), timeout: time.Second, consistency: replica.AtLeast, atLeast: 812, payload: []byte("find")},
		{op: opRead, shard: shard.NewID(shard.Meta, 0), consistency: replica.Stale, payload: []byte{}},
		{op: opPropose, shard: shard.NewID(shard.Order, 1), trace: trace.NewID(1, 2), command: shard.Command{Kind: shard.KindLogic, Payload: []byte("place")}},
		{op: opRead, shard: shard.NewID(shard.Order, 1), trace: trace.NewID(3, 4), payload: []byte("find")},
		{op: opRead, shard: shard.NewID(shard.Order, 1), trace: trace.NewID(3, 4), relay: true, payload: []byte("find")},
		{op: opPropose, shard: shard.NewID(shard.Order, 1), relay: true, command: shard.Command{Kind: shard.KindLogic, Payload: []byte("place")}},
		{op: opStatus, timeout: time.Second, payload: []byte{}},
		{op: opRecover, shard: shard.NewID(shard.Order, 1), payload: []byte{0, 0, 0, 0, 0, 0, 0, 9}},
	}
}

func TestRequest_survives_the_wire(t *testing.T) {
	for _, want := range sampleRequests() {
		got, err := decodeRequest(want.append(nil))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("decodeRequest = %+v, %v, want %+v", got, err, want)
		}
	}
}

func TestDecodeRequest_refuses(t *testing.T) {
	good := sampleRequests()[0].append(nil)
	read := sampleRequests()[2].append(nil)
	traced := sampleRequests()[5].append(nil)
	with := func(data []byte, at int, b byte) []byte {
		data = bytes.Clone(data)
		data[at] = b
		return data
	}
	for name, data := range map[string][]byte{
		"nothing":                            nil,
		"a short header":                     good[:10],
		"a newer version":                    with(good, 0, tracedVersion+1),
		"a request that says it has a trace": with(sampleRequests()[1].append(nil), 0, tracedVersion),
		"a trace and nothing else":           traced[:26],
		"a trace of zeros":                   append(append(bytes.Clone(traced[:10]), make([]byte, 16)...), traced[26:]...),
		"an unknown operation":               with(good, 1, 9),
		"a flag that is no one":              with(good, 10, 2),
		"half a command":                     good[:len(good)-1],
		"more than a command":                append(bytes.Clone(good), 0),
		"an unknown level":                   with(read, 10, byte(replica.Stale)+1),
		"a short read":                       read[:18],
	} {
		if r, err := decodeRequest(data); err == nil {
			t.Errorf("%s was taken for %+v", name, r)
		}
	}
}

func TestResponse_survives_the_wire(t *testing.T) {
	id := shard.NewID(shard.Order, 1)
	result := shard.Result{Code: "out_of_stock", Field: "/lines/0", Detail: "2 left", Position: 8, Replayed: true, Payload: []byte("x")}
	got, err := decodeResponse(id, encodeResponse(result, nil))
	if err != nil || !reflect.DeepEqual(got, result) {
		t.Errorf("decodeResponse = %+v, %v, want %+v", got, err, result)
	}
	for _, c := range []struct{ sent, want error }{
		{replica.ErrBusy, replica.ErrBusy},
		{replica.ErrOutcomeUnknown, replica.ErrOutcomeUnknown},
		// What certainly has not happened comes as one error: try elsewhere.
		{replica.ErrTimeout, errUnavailable},
		{replica.ErrStopped, errUnavailable},
		{replica.ErrNoReplica, replica.ErrNoReplica},
	} {
		if _, err := decodeResponse(id, encodeResponse(shard.Result{}, c.sent)); !errors.Is(err, c.want) {
			t.Errorf("%v came as %v, want %v", c.sent, err, c.want)
		}
	}
	var notLeader *replica.NotLeaderError
	_, err = decodeResponse(id, encodeResponse(shard.Result{}, &replica.NotLeaderError{Shard: id, Leader: 3}))
	if !errors.As(err, &notLeader) || notLeader.Leader != 3 || notLeader.Shard != id {
		t.Errorf("a redirection to node 3 came as %v", err)
	}
}

// Whatever cannot be read leaves the outcome unknown: the request may have been carried out.
func TestDecodeResponse_of_garbage_leaves_the_outcome_unknown(t *testing.T) {
	good := encodeResponse(shard.Result{Payload: []byte("x")}, nil)
	newer := bytes.Clone(good)
	newer[0]++
	status := bytes.Clone(good)
	status[1] = 200
	for name, data := range map[string][]byte{
		"nothing": nil, "half": good[:len(good)-1], "more": append(bytes.Clone(good), 0), "a newer version": newer, "an unknown status": status,
	} {
		if r, err := decodeResponse(0, data); !errors.Is(err, replica.ErrOutcomeUnknown) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, r := range sampleRequests() {
		f.Add(r.append(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeRequest(data)
		if err != nil {
			return
		}
		if again := r.append(nil); !bytes.Equal(again, data) {
			t.Errorf("decoded %x encodes to %x", data, again)
		}
	})
}

func FuzzDecodeResponse(f *testing.F) {
	f.Add(encodeResponse(shard.Result{Code: "out_of_stock", Position: 8, Replayed: true, Payload: []byte("x")}, nil))
	f.Add(encodeResponse(shard.Result{}, &replica.NotLeaderError{Leader: 2}))
	f.Add(encodeResponse(shard.Result{}, replica.ErrBusy))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := decodeResponse(0, data)
		if errors.Is(err, replica.ErrOutcomeUnknown) {
			return
		}
		if again := encodeResponse(r, err); !bytes.Equal(again, data) {
			t.Errorf("decoded %x (%v) encodes to %x", data, err, again)
		}
	})
}

// What version 1 was is not to change: nodes of the earlier program write it.
func TestRequest_without_a_trace_is_of_version_1(t *testing.T) {
	q := request{op: opRead, shard: shard.NewID(shard.Keyspace, 3), timeout: time.Second, consistency: replica.AtLeast, atLeast: 5, payload: []byte("k")}
	want := []byte{1, 2, 3, 0, 0, 0, 0xe8, 3, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 'k'}
	copy(want[2:6], q.append(nil)[2:6]) // numbers of shards have a form of their own
	if got := q.append(nil); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
}

func TestHeartbeat_survives_the_wire(t *testing.T) {
	for _, leaving := range []bool{false, true} {
		body := encodeBeat(-7, 9, leaving)
		for what, b := range map[string][]byte{"as it is": body, "of a later version": append(body, 7)} {
			if sent, version, left, err := decodeBeat(b); sent != -7 || version != 9 || left != leaving || err != nil {
				t.Errorf("%s: decodeBeat = %d, %d, %v, %v, want -7, 9, %v", what, sent, version, left, err, leaving)
			}
		}
		if sent, version, left, err := decodeBeat(body[:17]); sent != -7 || version != 9 || left || err != nil {
			t.Errorf("of the first version: decodeBeat = %d, %d, %v, %v, want -7, 9", sent, version, left, err)
		}
	}
	want := answeredBeat{sent: 1, received: 2, answered: 3, stalled: 40 * time.Millisecond, version: 5, row: []health.Link{
		{To: 2, Reached: true, RTT: 300 * time.Microsecond, Offset: -time.Second, Since: 8}, {To: 3, Since: 9},
	}}
	got, err := decodeAnsweredBeat(want.encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decodeAnsweredBeat = %+v, %v, want %+v", got, err, want)
	}
	if later, err := decodeAnsweredBeat(append(want.encode(), "of a later version"...)); err != nil || !reflect.DeepEqual(later, want) {
		t.Errorf("with an addition: %+v, %v", later, err)
	}
}

// Garbage is an error, never a panic, and what decodes encodes back to the same bytes.
func FuzzDecodeHeartbeat(f *testing.F) {
	a := answeredBeat{sent: 1, received: 2, answered: 3, version: 5, row: []health.Link{{To: 2, Reached: true}, {To: 3}}}
	f.Add(encodeBeat(1, 2, false))
	f.Add(encodeBeat(1, 2, true))
	f.Add(a.encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if sent, version, leaving, err := decodeBeat(data); err == nil {
			again := encodeBeat(sent, version, leaving)
			if sent2, version2, leaving2, err := decodeBeat(again); !bytes.HasPrefix(data, again[:17]) || sent2 != sent || version2 != version || leaving2 != leaving || err != nil {
				t.Errorf("heartbeat %x encodes as %x", data, again)
			}
		}
		if a, err := decodeAnsweredBeat(data); err == nil {
			if again := a.encode(); !bytes.HasPrefix(data, again) {
				t.Errorf("answer %x encodes as %x", data, again)
			}
		}
	})
}

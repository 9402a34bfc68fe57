package grpctransport

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"hanse/internal/transport"
)

// samples has every kind of message and every field of Raft's.
func samples() []transport.Message {
	return []transport.Message{
		{Kind: transport.KindRequest, ID: 1, Body: []byte("place order")},
		{Kind: transport.KindResponse, ID: 1 << 63, Group: 0xffffffff},
		{Kind: transport.KindSnapshot, Group: 7, FromReplica: 3, ToReplica: 4, ID: 9, Body: bytes.Repeat([]byte("row"), 1000)},
		raftMessage(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), Term: new(uint64(5)), Commit: new(uint64(17))}),
		raftMessage(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), Term: new(uint64(5)), Context: []byte("8 bytes.")}),
		raftMessage(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(5)), LogTerm: new(uint64(4)), Index: new(uint64(300)),
			Commit: new(uint64(299)), Entries: []*raftpb.Entry{
				{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(5)), Index: new(uint64(301)), Data: []byte("commands")},
				{Type: raftpb.EntryConfChangeV2.Enum(), Term: new(uint64(5)), Index: new(uint64(302))},
			}}),
		raftMessage(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), Term: new(uint64(5)), Index: new(uint64(300)),
			Reject: new(true), RejectHint: new(uint64(250)), LogTerm: new(uint64(3))}),
		raftMessage(&raftpb.Message{Type: raftpb.MsgPreVote.Enum(), Term: new(uint64(6)), Vote: new(uint64(2)), Index: new(uint64(1))}),
		raftMessage(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), Term: new(uint64(6)), Snapshot: &raftpb.Snapshot{Data: []byte("where to get it"),
			Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(100)), Term: new(uint64(4)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2, 3}}}}}),
		raftMessage(&raftpb.Message{Type: raftpb.MsgSnap.Enum(), Snapshot: &raftpb.Snapshot{}}),
	}
}

func raftMessage(m *raftpb.Message) transport.Message {
	m.From, m.To = new(uint64(11)), new(uint64(12))
	return transport.Message{Kind: transport.KindRaft, Group: 0x20001, FromReplica: 11, ToReplica: 12, Raft: m}
}

func encode(t testing.TB, messages ...transport.Message) []byte {
	frame, err := new(encoder).appendFrame(nil, messages)
	if err != nil {
		t.Fatal(err)
	}
	return frame
}

// render shows a message with all its fields, an unset one like a zero one.
func render(m transport.Message) string {
	raft := ""
	if r := m.Raft; r != nil {
		raft = fmt.Sprintf("%v %d>%d term %d log %d/%d commit %d vote %d reject %v %d context %q snapshot %v",
			r.GetType(), r.GetFrom(), r.GetTo(), r.GetTerm(), r.GetLogTerm(), r.GetIndex(), r.GetCommit(), r.GetVote(),
			r.GetReject(), r.GetRejectHint(), r.GetContext(), proto.MarshalOptions{}.Size(r.Snapshot))
		for _, e := range r.Entries {
			raft += fmt.Sprintf(" %v %d/%d %q", e.GetType(), e.GetTerm(), e.GetIndex(), e.GetData())
		}
	}
	return fmt.Sprintf("kind %d group %d %d>%d id %d body %q raft %s", m.Kind, m.Group, m.FromReplica, m.ToReplica, m.ID, m.Body, raft)
}

func TestFrameRoundTrip(t *testing.T) {
	want := samples()
	got, err := decodeFrame(nil, encode(t, want...))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("decoded %d messages, want %d", len(got), len(want))
	}
	for i := range want {
		if g, w := render(got[i]), render(want[i]); g != w {
			t.Errorf("message %d\n got %s\nwant %s", i, g, w)
		}
	}
	if g, w := got[8].Raft.Snapshot, want[8].Raft.Snapshot; !proto.Equal(g, w) {
		t.Errorf("snapshot %v, want %v", g, w)
	}
}

// seal puts the checksum before what should be messages.
func seal(body ...byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli)), body...)
}

func TestDecodeRefuses(t *testing.T) {
	altered := encode(t, samples()...)
	altered[len(altered)/2] ^= 0x10
	tooMany := make([]byte, 0, 8*maxFrameMessages)
	for range maxFrameMessages + 1 {
		tooMany = append(tooMany, 5, byte(transport.KindRequest), 0, 0, 0, 0)
	}
	raft := func(content ...byte) []byte {
		head := []byte{byte(4 + 1 + len(content)), byte(transport.KindRaft), 1, 11, 12, 0}
		return seal(append(head, content...)...)
	}
	entries := binary.AppendUvarint([]byte{byte(transport.KindRaft), 1, 11, 12, 0, byte(raftpb.MsgApp), maskEntries}, maxFrameEntries+1)
	entries = append(entries, bytes.Repeat([]byte{0, 1, 1, 0}, maxFrameEntries+1)...)
	tooManyEntries := seal(appendBytes(nil, entries)...)
	const app = byte(raftpb.MsgApp)
	tests := []struct {
		name  string
		frame []byte
		want  string
	}{
		{"empty", nil, "ends within"},
		{"altered", altered, "checksum"},
		{"cut off", seal(9, byte(transport.KindRequest), 0), "ends within"},
		{"message of no bytes", seal(0), "ends within"},
		{"unknown kind", seal(5, 9, 0, 0, 0, 0), "unknown message kind 9"},
		{"long form of a number", seal(6, byte(transport.KindRequest), 0x81, 0x00, 0, 0, 0), "shortest form"},
		{"number beyond 64 bits", seal(append([]byte{15, byte(transport.KindRequest), 0, 0, 0}, bytes.Repeat([]byte{0xff}, 11)...)...), "shortest form"},
		{"group beyond 32 bits", seal(9, byte(transport.KindRequest), 0x80, 0x80, 0x80, 0x80, 0x10, 0, 0, 0), "too large"},
		{"too many messages", seal(tooMany...), "more than 1024"},
		{"trailing bytes", raft(app, 0, 0), "longer than its content"},
		{"unknown mask", raft(app, 0x80, 0x08), "mask 0x400"},
		{"present and zero", raft(app, maskTerm, 0), "present and is zero"},
		{"empty context", raft(app, maskContext, 0), "present and is zero"},
		{"no entries", raft(app, maskEntries, 0), "present and is zero"},
		{"more entries than bytes", raft(app, maskEntries, 0xff, 0xff, 0x03, 0, 1, 1, 0), "65535 entries in 4 bytes"},
		{"more entries than a frame may hold", tooManyEntries, "the frame may hold 1048576 more"},
		{"unknown entry type", raft(app, maskEntries, 1, 9, 1, 1, 0), "unknown entry type 9"},
		{"entry cut off", raft(app, maskEntries, 1, 0, 1, 1, 5), "ends within"},
		{"local type", raft(byte(raftpb.MsgHup), 0), "does not travel"},
		{"heartbeat context that makes raft panic", raft(byte(raftpb.MsgHeartbeatResp), maskContext, 2, 'a', 'b'), "want 0 or 8"},
		{"snapshot of garbage", raft(byte(raftpb.MsgSnap), 0x80, 0x04, 1, 0xff), "snapshot"},
		{"snapshot in another form", raft(byte(raftpb.MsgSnap), 0x80, 0x04, 6, 0x0a, 1, 'a', 0x0a, 1, 'b'), "not in the form"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := decodeFrame(nil, test.frame)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("decodeFrame = %v, %v, want an error with %q", got, err, test.want)
			}
		})
	}
}

func TestSmallPiecesDoNotKeepLargeFrames(t *testing.T) {
	large := transport.Message{Kind: transport.KindRequest, Body: make([]byte, 128<<10)}
	small := transport.Message{Kind: transport.KindRequest, Body: []byte("small")}
	frame := encode(t, large, small)
	got, err := decodeFrame(nil, frame)
	if err != nil {
		t.Fatal(err)
	}
	clear(frame)
	if string(got[1].Body) != "small" {
		t.Errorf("the small body is part of the frame, want a copy")
	}
}

// FuzzDecodeFrame: whatever decodes encodes to the same bytes. The checksum is added here, for
// a fuzzer would not find it.
func FuzzDecodeFrame(f *testing.F) {
	for _, m := range samples() {
		f.Add(encode(f, m)[checksumBytes:])
	}
	f.Add(encode(f, samples()...)[checksumBytes:])
	f.Fuzz(func(t *testing.T, body []byte) {
		frame := seal(body...)
		messages, err := decodeFrame(nil, frame)
		if err != nil {
			return
		}
		again, err := new(encoder).appendFrame(nil, messages)
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		if !bytes.Equal(again, frame) {
			t.Fatalf("decoded and encoded\n got %x\nwant %x", again, frame)
		}
	})
}

func BenchmarkFrame(b *testing.B) {
	messages := make([]transport.Message, 0, 256)
	for range cap(messages) {
		messages = append(messages, raftMessage(&raftpb.Message{Type: raftpb.MsgApp.Enum(), Term: new(uint64(5)), LogTerm: new(uint64(5)),
			Index: new(uint64(300)), Commit: new(uint64(299)), Entries: []*raftpb.Entry{{Term: new(uint64(5)), Index: new(uint64(301)), Data: make([]byte, 100)}}}))
	}
	b.ReportAllocs()
	var e encoder
	var buf []byte
	var decoded []transport.Message
	for b.Loop() {
		buf, _ = e.appendFrame(buf[:0], messages)
		decoded, _ = decodeFrame(decoded[:0], buf)
	}
	b.ReportMetric(float64(b.N*len(messages))/b.Elapsed().Seconds(), "messages/s")
}

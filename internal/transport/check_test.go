package transport

import (
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
)

func TestCheck(t *testing.T) {
	raftMessage := func(kind raftpb.MessageType, change func(*Message)) Message {
		m := Message{Kind: KindRaft, Group: 7, FromReplica: 1, ToReplica: 2,
			Raft: &raftpb.Message{Type: kind.Enum(), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(3))}}
		if change != nil {
			change(&m)
		}
		return m
	}
	tests := []struct {
		name    string
		message Message
		want    string // part of the error, empty for none
	}{
		{"request", Message{Kind: KindRequest, ID: 1, Body: []byte("a")}, ""},
		{"empty body", Message{Kind: KindResponse}, ""},
		{"largest body", Message{Kind: KindSnapshot, Body: make([]byte, MaxBodyBytes)}, ""},
		{"body too large", Message{Kind: KindSnapshot, Body: make([]byte, MaxBodyBytes+1)}, "the most is"},
		{"no kind", Message{}, "unknown message kind 0"},
		{"unknown kind", Message{Kind: 9}, "unknown message kind 9"},
		{"request with a raft message", Message{Kind: KindRequest, Raft: &raftpb.Message{}}, "carries a raft message"},
		{"append", raftMessage(raftpb.MsgApp, nil), ""},
		{"forwarded proposal", raftMessage(raftpb.MsgProp, nil), ""},
		{"raft without message", Message{Kind: KindRaft, Group: 1, FromReplica: 1, ToReplica: 2}, "is empty"},
		{"raft with a body", raftMessage(raftpb.MsgApp, func(m *Message) { m.Body = []byte("b") }), "with a body"},
		{"no group", raftMessage(raftpb.MsgApp, func(m *Message) { m.Group = 0 }), "none may be 0"},
		{"no receiver", raftMessage(raftpb.MsgApp, func(m *Message) { m.ToReplica = 0 }), "none may be 0"},
		{"another receiver inside", raftMessage(raftpb.MsgApp, func(m *Message) { m.ToReplica = 3 }), "in an envelope from 1 to 3"},
		{"another sender inside", raftMessage(raftpb.MsgApp, func(m *Message) { m.FromReplica = 3 }), "in an envelope from 3 to 2"},
		{"local message", raftMessage(raftpb.MsgHup, nil), "does not travel"},
		{"local answer", raftMessage(raftpb.MsgStorageAppendResp, nil), "does not travel"},
		{"unknown raft type", raftMessage(99, nil), "does not travel"},
		{"heartbeat response", raftMessage(raftpb.MsgHeartbeatResp, nil), ""},
		{"read confirmed", raftMessage(raftpb.MsgHeartbeatResp, func(m *Message) { m.Raft.Context = make([]byte, 8) }), ""},
		{"short context", raftMessage(raftpb.MsgHeartbeatResp, func(m *Message) { m.Raft.Context = make([]byte, 7) }), "7 bytes of context"},
		{"long context", raftMessage(raftpb.MsgHeartbeatResp, func(m *Message) { m.Raft.Context = make([]byte, 9) }), "9 bytes of context"},
		{"transfer vote", raftMessage(raftpb.MsgVote, func(m *Message) { m.Raft.Context = []byte("CampaignTransfer") }), ""},
		{"local responses", raftMessage(raftpb.MsgApp, func(m *Message) { m.Raft.Responses = []*raftpb.Message{{}} }), "local responses"},
		{"entries too large", raftMessage(raftpb.MsgApp, func(m *Message) {
			m.Raft.Entries = []*raftpb.Entry{{Data: make([]byte, MaxRaftBytes)}}
		}), "the most is"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			err := test.message.Check()
			if test.want == "" && err != nil {
				t.Errorf("Check() = %v, want none", err)
			}
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("Check() = %v, want %q", err, test.want)
			}
		})
	}
}

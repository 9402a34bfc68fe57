package shard

import (
	"bytes"
	"reflect"
	"testing"

	"hanse/internal/hlc"
)

func sampleEntry() Entry {
	return Entry{Time: hlc.FromMillis(1_700_000_000_000), Proposer: 77, Commands: []Command{
		{Kind: KindLogic, Tag: 1, Caller: "shop", Key: "k1", RequestHash: 9, Payload: []byte("place")},
		{Kind: KindTick, Payload: []byte{}},
	}}
}

func TestEntryRoundTrip(t *testing.T) {
	want := sampleEntry()
	got, err := DecodeEntry(AppendEntry(nil, &want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("DecodeEntry(AppendEntry(e)) = %+v, %v, want %+v", got, err, want)
	}
}

func TestDecodeEntryRefusesNewerVersion(t *testing.T) {
	e := sampleEntry()
	data := AppendEntry(nil, &e)
	data[0] = entryVersion + 1
	if _, err := DecodeEntry(data); err == nil {
		t.Fatal("an entry of a newer version was accepted")
	}
}

func FuzzDecodeEntry(f *testing.F) {
	e := sampleEntry()
	f.Add(AppendEntry(nil, &e))
	f.Add([]byte{entryVersion})
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := DecodeEntry(data)
		if err != nil {
			return
		}
		if again := AppendEntry(nil, &e); !bytes.Equal(again, data) {
			t.Errorf("decoded %x encodes to %x", data, again)
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add(EncodeReply(7, &Result{Code: "out_of_stock", Field: "/lines/0", Detail: "2 left", Position: 8, Replayed: true}))
	f.Add(EncodeReply(1<<40, &Result{Payload: []byte("x"), Pending: "ord_1"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		seq, r, err := DecodeReply(data)
		if err != nil {
			return
		}
		if again := EncodeReply(seq, &r); !bytes.Equal(again, data) {
			t.Errorf("decoded %x encodes to %x", data, again)
		}
	})
}

func FuzzDecodeStuck(f *testing.F) {
	f.Add(EncodeStuck(&Stuck{Seq: 3, Attempts: 12, NextTry: 99, Cause: "psp: 503"}))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := DecodeStuck(data)
		if err != nil {
			return
		}
		if again := EncodeStuck(&s); !bytes.Equal(again, data) {
			t.Errorf("decoded %x encodes to %x", data, again)
		}
	})
}

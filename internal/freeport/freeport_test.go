package freeport

import (
	"net"
	"testing"
)

func TestABlockIsGivenOnce(t *testing.T) {
	seen := make(map[int]bool)
	for range 50 {
		first, err := Block()
		if err != nil {
			t.Fatal(err)
		}
		if seen[first] {
			t.Errorf("block %d was given twice", first)
		}
		seen[first] = true
		if first < lowest || first+Size > highest || first%Size != 0 {
			t.Errorf("block %d", first)
		}
		if l, err := net.Listen("tcp", address(first+Size-1)); err == nil {
			l.Close()
			t.Errorf("block %d is not held: another process may get it", first)
		}
		if !free(first, Size-1) {
			t.Errorf("a port of block %d is in use", first)
		}
	}
}

func TestABlockInUseIsPassedOver(t *testing.T) {
	first, err := Block()
	if err != nil {
		t.Fatal(err)
	}
	for _, use := range []func(port int) (func() error, error){
		func(port int) (func() error, error) {
			l, err := net.Listen("tcp", address(port))
			if err != nil {
				return nil, err
			}
			return l.Close, nil
		},
		func(port int) (func() error, error) {
			l, err := net.ListenPacket("udp", address(port))
			if err != nil {
				return nil, err
			}
			return l.Close, nil
		},
	} {
		stop, err := use(first + 3)
		if err != nil {
			t.Fatal(err)
		}
		if free(first, Size-1) {
			t.Errorf("port %d is in use, and the block passes for free", first+3)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
	}
}

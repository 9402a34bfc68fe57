package freeport

import (
	"errors"
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

func TestBlocksInARow(t *testing.T) {
	first, err := Blocks(3)
	if err != nil {
		t.Fatal(err)
	}
	if first < lowest || first+3*Size > highest || first%Size != 0 {
		t.Errorf("block %d", first)
	}
	for i := range 3 {
		block := first + i*Size
		if l, err := net.Listen("tcp", address(block+Size-1)); err == nil {
			l.Close()
			t.Errorf("block %d is not held", block)
		}
		if !free(block, Size-1) {
			t.Errorf("a port of block %d is in use", block)
		}
	}
	if next, err := Block(); err != nil || next >= first && next < first+3*Size {
		t.Errorf("the next block is %d, %v, one of those three", next, err)
	}
}

// One port in use spoils the row, and nothing of it stays held.
func TestARowInUseIsPassedOver(t *testing.T) {
	first, err := Blocks(2)
	if err != nil {
		t.Fatal(err)
	}
	if hold(first, 2) != nil {
		t.Errorf("the row at %d was given twice", first)
	}
	for _, l := range taken.held[len(taken.held)-2:] {
		l.Close()
	}
	taken.held = taken.held[:len(taken.held)-2]
	l, err := net.Listen("tcp", address(first+Size+3))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if hold(first, 2) != nil {
		t.Errorf("the row at %d was given, of which port %d is in use", first, first+Size+3)
	}
	if !free(first, Size) {
		t.Errorf("a port of block %d is still held", first)
	}
}

func TestMoreThanThereIs(t *testing.T) {
	if first, err := Blocks(blocks + 1); !errors.Is(err, ErrNone) {
		t.Errorf("%d blocks in a row: %d, %v", blocks+1, first, err)
	}
}

// Package freeport finds ports for nodes of tests and benchmarks: a node has to know its addresses before it starts, and so do its peers.
//
// Asking the system for any port and closing it again does not do: until the node listens there, the port may go to a connection that
// somebody else opens. So blocks lie below the range from which systems give ports to whoever asks for any, and one port of each is held
// for as long as the process lives, which keeps other processes that ask here away from the whole block.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// Size is the number of ports of a block, the last of which is held. It is as many as a node may want.
const Size = 10

const (
	lowest, highest = 10_000, 30_000 // Linux gives ports from 32,768, most others from 49,152
	blocks          = (highest - lowest) / Size
)

var taken struct {
	sync.Mutex
	next int
	held []net.Listener // never closed: the end of the process does it
}

// ErrNone is returned when no row of blocks is as long as is asked for.
var ErrNone = errors.New("not as many ports in a row are free")

// Block returns the first port of a block on 127.0.0.1 that nobody else uses, over TCP or UDP, and that no process gets that asks here.
func Block() (first int, err error) { return Blocks(1) }

// Blocks returns the first port of n blocks in a row, as Block does: of each the last port is held. Hanse dev takes ten.
func Blocks(n int) (first int, err error) {
	taken.Lock()
	defer taken.Unlock()
	if taken.next == 0 {
		taken.next = rand.IntN(blocks)
	}
	for range blocks {
		at := taken.next
		taken.next = (at + 1) % blocks
		if at+n > blocks {
			continue
		}
		first = lowest + at*Size
		if held := hold(first, n); held != nil {
			taken.held = append(taken.held, held...)
			taken.next = (at + n) % blocks
			return first, nil
		}
	}
	return 0, ErrNone
}

// hold listens on the last port of each of n blocks; nil when one of their ports is in use.
func hold(first, n int) (held []net.Listener) {
	for ; n > 0; n, first = n-1, first+Size {
		l, err := net.Listen("tcp", address(first+Size-1))
		if err == nil {
			held = append(held, l)
		}
		if err != nil || !free(first, Size-1) {
			for _, l := range held {
				l.Close()
			}
			return nil
		}
	}
	return held
}

// free reports whether nobody listens on some ports in a row.
func free(first, n int) bool {
	for port := first; port < first+n; port++ {
		l, err := net.Listen("tcp", address(port))
		if err != nil {
			return false
		}
		l.Close()
		u, err := net.ListenPacket("udp", address(port))
		if err != nil || u.Close() != nil {
			return false
		}
	}
	return true
}

func address(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

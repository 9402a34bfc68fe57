package grpctransport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"hanse/internal/transport"
	"hanse/internal/transport/transporttest"
)

// lab connects nodes by listeners in memory, so that streams work in a synctest bubble.
type lab struct {
	mu        sync.Mutex
	listeners map[string]*bufconn.Listener
	dialled   []time.Time
	tls       map[transport.NodeID]*tls.Config
	admit     func(node transport.NodeID, boot, incarnation uint64) error
	founding  string
}

func newLab() *lab { return &lab{listeners: map[string]*bufconn.Listener{}} }

func (l *lab) Clusters() bool { return true }

func (l *lab) Settle() {
	time.Sleep(30 * time.Second)
	synctest.Wait()
}

func (l *lab) dial(ctx context.Context, address string) (net.Conn, error) {
	l.mu.Lock()
	listener := l.listeners[address]
	l.dialled = append(l.dialled, time.Now())
	l.mu.Unlock()
	if listener == nil {
		return nil, fmt.Errorf("nobody listens at %q", address)
	}
	return listener.DialContext(ctx)
}

func (l *lab) listen(t *testing.T, address string) *bufconn.Listener {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.listeners[address] != nil {
		t.Fatalf("address %q is taken", address)
	}
	l.listeners[address] = bufconn.Listen(256 << 10)
	return l.listeners[address]
}

func (l *lab) Start(t *testing.T, o transporttest.Options) (transporttest.Node, func()) {
	n, stop := l.start(t, o)
	return n, stop
}

func (l *lab) start(t *testing.T, o transporttest.Options) (*Transport, func()) {
	cfg := DefaultConfig()
	cfg.Cluster, cfg.Node, cfg.Incarnation, cfg.Dial, cfg.TLS = "hanse", o.ID, 42, l.dial, l.tls[o.ID]
	if l.admit != nil {
		cfg.Admit = l.admit
	}
	cfg.Boot = uint64(10 * o.ID)
	cfg.Founding = func() string { return l.founding }
	if o.Cluster != "" {
		cfg.Cluster = o.Cluster
	}
	if o.QueueBytes > 0 {
		for class := range transport.Classes {
			cfg.QueueBytes[class] = o.QueueBytes
		}
	}
	n, err := New(cfg, o.Handler)
	if err != nil {
		t.Fatal(err)
	}
	listener := l.listen(t, o.Address)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := n.Run(ctx, listener); !errors.Is(err, context.Canceled) {
			t.Errorf("Run of node %d = %v, want %v", o.ID, err, context.Canceled)
		}
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-ended
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.listeners, o.Address)
	})
	t.Cleanup(stop)
	return n, stop
}

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Lab { return newLab() })
}

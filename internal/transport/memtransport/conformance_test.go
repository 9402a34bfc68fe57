package memtransport

import (
	"testing"

	"hanse/internal/transport"
	"hanse/internal/transport/transporttest"
)

// lab pumps a network when the test wants to see what arrives.
type lab struct{ network *Network }

func (l lab) Clusters() bool { return false }

func (l lab) Settle() {
	for len(l.network.Links()) > 0 {
		l.network.Pump()
	}
}

func (l lab) Start(t *testing.T, o transporttest.Options) (transporttest.Node, func()) {
	n := l.network.Attach(o.ID, o.Address, o.Handler)
	if o.QueueBytes > 0 {
		for class := range transport.Classes {
			l.network.cfg.QueueBytes[class] = o.QueueBytes
		}
	}
	return n, n.Detach
}

func TestConformance(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Lab { return lab{NewNetwork(Config{})} })
}

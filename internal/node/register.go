package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hanse/api/metapb"
	"hanse/internal/cluster"
	"hanse/internal/reject"
	"hanse/internal/store"
)

// bootKey counts the starts of the node. It lies outside the replicas' keys.
var bootKey = []byte("n/boot")

// countBoot adds one to the number of starts, on disk before it is used.
func countBoot(e store.Engine) (uint64, error) {
	data, err := e.Get(bootKey)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, fmt.Errorf("read boot counter: %w", err)
	}
	boot := uint64(0)
	if err == nil {
		known, n := binary.Uvarint(data)
		if n != len(data) || known == 0 {
			return 0, fmt.Errorf("read boot counter: %x is not a number of starts", data)
		}
		boot = known
	}
	boot++
	b := e.NewBatch()
	defer b.Close()
	b.Set(bootKey, binary.AppendUvarint(nil, boot))
	if err := e.Apply(b, true); err != nil {
		return 0, fmt.Errorf("write boot counter: %w", err)
	}
	return boot, nil
}

// registerPause is the time between attempts to register; the first may come before there is a leader.
const registerPause = 500 * time.Millisecond

// register founds the cluster, when it has to be, and tells the meta shard who this node is, as often as it takes, while the node serves
// already: without quorum there is nobody to ask, and the first nodes of a cluster make the quorum. It returns the refusal of a
// node that must stop: its directory is an old copy, it has been removed, or its program is too old.
func (n *Node) register(ctx context.Context) error {
	http, peer, gossip := n.cfg.Advertised()
	m := &metapb.Command{Body: &metapb.Command_Register{Register: &metapb.Register{Node: &metapb.Node{
		Id: n.cfg.ID, Http: http, Peers: peer, Gossip: gossip, Version: n.cfg.Version, Format: formatVersion, Boot: n.boot, Process: n.process,
		Name: n.cfg.Name, Zone: n.cfg.Zone, Roles: roleNumbers(n.cfg.Roles), Features: cluster.FeatureLevel,
	}}}}
	for {
		err := n.found(ctx)
		if err == nil {
			err = n.client.tell(ctx, m, new(metapb.Node))
		}
		refused, ok := errors.AsType[*reject.Rejection](err)
		switch { // another error means that there is no leader yet: it is tried again
		case ok:
			return fmt.Errorf("the cluster refuses this node: %w", refused)
		case err == nil:
			n.log.Info("node registered", "boot", n.boot)
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(registerPause):
		}
	}
}

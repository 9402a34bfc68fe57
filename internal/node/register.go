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

// bootKey counts the starts of the node that the cluster may know of. It lies outside the replicas' keys.
var bootKey = []byte("n/boot")

// nextBoot returns the number of this start: one more than the last that the cluster may know of. It is not counted yet: an old copy of a
// directory, which is refused, must not come to a number that is new by being started again and again.
func nextBoot(e store.Engine) (uint64, error) {
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
	return boot + 1, nil
}

// countBoot counts a start, on disk before the cluster hears of it.
func countBoot(e store.Engine, boot uint64) error {
	b := e.NewBatch()
	defer b.Close()
	b.Set(bootKey, binary.AppendUvarint(nil, boot))
	if err := e.Apply(b, true); err != nil {
		return fmt.Errorf("write boot counter: %w", err)
	}
	return nil
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
		Provider: providerName(n.psp()),
	}}}}
	for {
		err := n.found(ctx)
		if err == nil && !n.directory.now().confirmed { // founding has read it already
			err = n.directory.refresh(ctx)
		}
		if err == nil {
			err = n.count()
		}
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

// count counts this start, unless the cluster has seen another one with its number: then the directory is an old copy, and stays as it is.
func (n *Node) count() error {
	k := n.directory.now()
	if !k.confirmed {
		return errNotFounded // it is asked again
	}
	if seen := k.nodes[n.cfg.ID]; seen.GetRegisteredAt() != 0 && seen.Process != n.process && seen.Boot >= n.boot {
		return &reject.Rejection{Code: reject.StaleNode, Detail: fmt.Sprintf("node %d says that it has been started %d times, but the cluster has seen %d: "+
			"its directory is an old copy, or used twice, or was emptied", n.cfg.ID, n.boot, seen.Boot)}
	}
	return n.countBoot(n.boot)
}

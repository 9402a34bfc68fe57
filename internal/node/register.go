package node

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"hanse/api/metapb"
	"hanse/internal/reject"
	"hanse/internal/rest"
	"hanse/internal/shard"
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

// register tells the meta shard who this node is, as often as it takes, while the node serves already: without
// quorum there is nobody to ask, and the first nodes of a cluster make the quorum. It returns the refusal of a node whose
// directory is an old copy: it has forgotten what it promised, and must stop.
func (n *Node) register(ctx context.Context) error {
	self := Peer{ID: n.cfg.ID, HTTP: n.cfg.HTTPAddr, Peer: n.cfg.PeerAddr}
	for _, p := range n.cfg.Peers {
		if p.ID == n.cfg.ID {
			self = p // as the others reach it: it may listen on another address
		}
	}
	m := &metapb.Command{Body: &metapb.Command_Register{Register: &metapb.Register{Node: &metapb.Node{
		Id: n.cfg.ID, Http: self.HTTP, Peers: self.Peer, Version: n.cfg.Version, Format: formatVersion, Boot: n.boot, Process: n.process,
	}}}}
	for {
		_, result, err := n.client.propose(ctx, shard.Meta, 0, rest.Request{}, m, 0)
		switch { // an error means that there is no leader yet: it is tried again
		case err == nil && result.Code == reject.StaleNode:
			return fmt.Errorf("the cluster refuses this node: %s; start it with its latest directory, or replace it", result.Detail)
		case err == nil && result.OK():
			n.log.Info("node registered", "boot", n.boot)
			return nil
		case err == nil:
			return fmt.Errorf("register: %w", rejection(result))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(registerPause):
		}
	}
}

package sim

import (
	"hanse/internal/id"
	"hanse/internal/shard"
	"hanse/internal/shard/inventoryshard"
	"hanse/internal/shard/keyspaceshard"
	"hanse/internal/shard/metashard"
	"hanse/internal/shard/notificationshard"
	"hanse/internal/shard/ordershard"
	"hanse/internal/shard/paymentshard"
	"hanse/internal/slot"
	"hanse/internal/store"
)

// openShard creates the state machine of each service, as package node does.
func openShard(w *World) shard.Opener {
	layout := w.plan.Layout
	builds := map[shard.Service]func(*shard.State) shard.Logic{
		shard.Meta:         metashard.New(),
		shard.Order:        ordershard.New(layout),
		shard.Inventory:    inventoryshard.New(layout),
		shard.Payment:      paymentshard.New(),
		shard.Notification: notificationshard.New(),
		shard.Keyspace:     keyspaceshard.New(),
	}
	return func(id shard.ID, r store.Reader, prefix []byte) (shard.Machine, error) {
		build := w.mutant.logic(id, builds[id.Service()])
		if id.Service() == shard.Inventory {
			inner := build
			build = func(s *shard.State) shard.Logic { return &patient{inner(s), w} }
		}
		return shard.Open(w.mutant.reader(id, r), prefix, build)
	}
}

func slotOfOrder(orderID string) slot.Slot {
	sl, err := id.Parse(id.Order, orderID)
	if err != nil {
		panic(err)
	}
	return sl
}

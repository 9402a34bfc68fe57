package sim

import (
	"hanse/internal/id"
	"hanse/internal/shard"
	"hanse/internal/shard/inventoryshard"
	"hanse/internal/shard/ordershard"
	"hanse/internal/shard/paymentshard"
	"hanse/internal/slot"
	"hanse/internal/store"
)

// openShard creates the state machine of each service, as package node does.
func openShard(layout shard.Layout, m *Mutant) shard.Opener {
	return func(id shard.ID, r store.Reader, prefix []byte) (shard.Machine, error) {
		var build func(*shard.State) shard.Logic
		switch id.Service() {
		case shard.Order:
			build = ordershard.New(layout)
		case shard.Inventory:
			build = inventoryshard.New(layout)
		case shard.Payment:
			build = paymentshard.New()
		default:
			build = newRegister
		}
		return shard.Open(m.reader(id, r), prefix, m.logic(id, build))
	}
}

func slotOfOrder(orderID string) slot.Slot {
	sl, err := id.Parse(id.Order, orderID)
	if err != nil {
		panic(err)
	}
	return sl
}

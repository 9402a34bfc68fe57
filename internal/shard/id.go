package shard

import (
	"fmt"
	"strconv"
	"strings"

	"hanse/internal/slot"
)

// Service names one of the replicated services. Its number is on disk and on the wire.
type Service uint8

// The services. A number is never reused.
const (
	Meta         Service = 1
	Order        Service = 2
	Inventory    Service = 3
	Payment      Service = 4
	Notification Service = 5
	Keyspace     Service = 6
)

var serviceNames = map[Service]string{
	Meta: "meta", Order: "order", Inventory: "inventory", Payment: "payment",
	Notification: "notification", Keyspace: "keyspace",
}

// Services lists all services in the order of their numbers.
func Services() []Service {
	return []Service{Meta, Order, Inventory, Payment, Notification, Keyspace}
}

// String returns the lower-case name, which is also what configuration and URLs use.
func (s Service) String() string {
	if name, ok := serviceNames[s]; ok {
		return name
	}
	return "service" + strconv.Itoa(int(s))
}

// ID names a shard: a service in the upper half, its index among the service's shards in the lower.
// It is also the number of the shard's Raft group, so smaller IDs are served first (meta before all).
type ID uint32

// NewID returns the ID of shard index of service s.
func NewID(s Service, index int) ID { return ID(uint32(s)<<16 | uint32(index)) }

// Service returns the service that the shard belongs to.
func (id ID) Service() Service { return Service(id >> 16) }

// Index returns the shard's index within its service, from 0.
func (id ID) Index() int { return int(id & 0xffff) }

// String returns for example "order/3".
func (id ID) String() string { return id.Service().String() + "/" + strconv.Itoa(id.Index()) }

// ParseID reads what String wrote.
func ParseID(s string) (ID, error) {
	name, index, ok := strings.Cut(s, "/")
	if ok {
		for service, n := range serviceNames { // in any order: names are unique
			if n != name {
				continue
			}
			if i, err := strconv.ParseUint(index, 10, 16); err == nil {
				return NewID(service, int(i)), nil
			}
		}
	}
	return 0, fmt.Errorf("shard %q: want service/index, for example order/3", s)
}

// Layout says into how many shards each service's slots are divided. It is chosen when a cluster
// is bootstrapped and never changes after that; shards move between nodes, keys not between shards.
type Layout map[Service]int

// DefaultLayout suits three nodes on two cores: few groups make large batches (a group more is an
// entry more to each sync), and still spread over three leaders.
func DefaultLayout() Layout {
	return Layout{Meta: 1, Order: 3, Inventory: 3, Payment: 3, Notification: 1, Keyspace: 1}
}

// Shard returns the shard of service s that owns slot sl.
func (l Layout) Shard(s Service, sl slot.Slot) ID {
	return NewID(s, int(sl)*l[s]/slot.Count)
}

// InventoryOf returns the index of the inventory shard that keeps a SKU.
func (l Layout) InventoryOf(sku string) uint32 {
	return uint32(l.Shard(Inventory, slot.Of(sku)).Index())
}

// KeyHome returns the shard that knows which request an idempotency key is for: one of the orders, so that a key with the customer's ID as its hash tag
// ("{customer}...", see [slot.Of]) is known where the customer's orders are.
func (l Layout) KeyHome(key string) ID { return l.Shard(Order, slot.Of(key)) }

// All lists every shard in ID order.
func (l Layout) All() []ID {
	var ids []ID
	for _, s := range Services() {
		for i := range l[s] {
			ids = append(ids, NewID(s, i))
		}
	}
	return ids
}

// Validate reports a layout that cannot be used.
func (l Layout) Validate() error {
	for _, s := range Services() {
		if n := l[s]; n < 1 || n > 4096 {
			return fmt.Errorf("layout: %s has %d shards, want 1 to 4096", s, n)
		}
	}
	return nil
}

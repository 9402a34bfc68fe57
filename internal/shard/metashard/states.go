package metashard

import (
	"fmt"
	"strings"

	"hanse/api/metapb"
)

// State is what is wanted of a node.
type State = metapb.NodeState

// The states, with one of our own for a number that has no node.
const (
	None            State = -1
	Active                = metapb.NodeState_NODE_ACTIVE
	Joining               = metapb.NodeState_NODE_JOINING
	Draining              = metapb.NodeState_NODE_DRAINING
	Decommissioning       = metapb.NodeState_NODE_DECOMMISSIONING
	Decommissioned        = metapb.NodeState_NODE_DECOMMISSIONED
)

// States lists the states of nodes in the order of a node's life.
func States() []State { return []State{Joining, Active, Draining, Decommissioning, Decommissioned} }

// StateName returns the name of a state as people and REST see it.
func StateName(s State) string {
	switch s {
	case None:
		return "none"
	case Active:
		return "active"
	case Joining:
		return "joining"
	case Draining:
		return "draining"
	case Decommissioning:
		return "decommissioning"
	case Decommissioned:
		return "decommissioned"
	}
	return fmt.Sprintf("state%d", s)
}

// Input is what moves a node from state to state.
type Input string

// The inputs.
const (
	OnFound    Input = "found"
	OnJoin     Input = "join"
	OnRegister Input = "register"
	OnSet      Input = "set state"         // by an operator, or the plan
	OnLost     Input = "set state, lost"   // the node is gone for good
	OnReplace  Input = "join, replaces it" // the same, by the node that takes its place
)

// Transition is a row of table N: in state From, On may lead to state To.
type Transition struct {
	From State
	On   Input
	To   State
	// Empty asks that no replica is placed on the node nor on its way to it.
	Empty bool
	// Effect says what follows elsewhere.
	Effect string
}

// Transitions returns table N.
func Transitions() []Transition { return transitions }

var transitions = func() []Transition {
	const dropped = "moves to it are given up; its replicas are rebuilt elsewhere"
	rows := []Transition{
		{None, OnFound, Active, false, "a founder, of which only the addresses are known until it registers"},
		{None, OnJoin, Joining, false, "it has a number"},
		{None, OnRegister, Active, false, "a founder, whose number is lower than that of the first one to join"},
		{Joining, OnRegister, Active, false, "it takes replicas"},
		{Active, OnSet, Draining, false, "it leads nothing, and takes no replicas"},
		{Draining, OnSet, Active, false, "it takes replicas and leads again"},
		{Active, OnSet, Decommissioning, false, "its replicas move away"},
		{Draining, OnSet, Decommissioning, false, "its replicas move away"},
		{Decommissioning, OnSet, Active, false, "interrupted: what has moved away stays away"},
		{Decommissioning, OnSet, Draining, false, "interrupted: what has moved away stays away"},
		{Decommissioning, OnSet, Decommissioned, true, "for good"},
	}
	for _, s := range []State{Active, Draining, Decommissioning} {
		rows = append(rows, Transition{s, OnRegister, s, false, "started, again or for the first time since the founding"})
	}
	for _, s := range States() {
		if s != Decommissioned {
			rows = append(rows, Transition{s, OnLost, Decommissioned, false, dropped})
		}
	}
	for _, s := range States() {
		if s != Decommissioned {
			rows = append(rows, Transition{s, OnReplace, Decommissioned, false, dropped + "; its name is free"})
		}
	}
	return rows
}()

// transition finds the row that leads from a state to another.
func transition(from State, on Input, to State) (Transition, bool) {
	for _, t := range transitions {
		if t.From == from && t.On == on && t.To == to {
			return t, true
		}
	}
	return Transition{}, false
}

// Table prints the transitions as Markdown, for the documentation.
func Table() string {
	var b strings.Builder
	b.WriteString("| From | On | When | To | Effect |\n|---|---|---|---|---|\n")
	for _, t := range transitions {
		when := ""
		if t.Empty {
			when = "no replica is on it, nor on its way to it"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", StateName(t.From), t.On, when, StateName(t.To), t.Effect)
	}
	return b.String()
}

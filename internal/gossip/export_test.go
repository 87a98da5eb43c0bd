package gossip

import (
	"context"
	"maps"
	"slices"
)

// Alive returns the members that are not dead, this node among them.
func (g *Gossip) Alive() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Sorted(maps.Keys(g.alive))
}

// SetProbe makes what tries to reach a machine another one, and returns the real one. Call it before Run.
func (g *Gossip) SetProbe(probe func(ctx context.Context, address string) error) func(context.Context, string) error {
	before := g.probe
	g.probe = probe
	return before
}

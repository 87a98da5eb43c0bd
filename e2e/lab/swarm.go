package lab

import (
	"context"
	"fmt"
	"strings"
)

// Port is where nodes listen for each other.
const Port = 2377

// Swarm makes one swarm of machines whose daemons run. The first is its first manager; of the others, those whose names
// start with m become managers, and the rest workers. It returns when all have joined.
func (n *Network) Swarm(ctx context.Context, names ...string) error {
	first := n.Machine(names[0])
	if _, err := first.Skep(ctx, "swarm", "init"); err != nil {
		return err
	}
	tokens := map[string]string{}
	for _, role := range []string{"worker", "manager"} {
		token, err := first.Skep(ctx, "swarm", "join-token", "-q", role)
		if err != nil {
			return err
		}
		tokens[role] = strings.TrimSpace(token)
	}
	for _, name := range names[1:] {
		role := "worker"
		if strings.HasPrefix(name, "m") {
			role = "manager"
		}
		m := n.Machine(name)
		if m == nil {
			return fmt.Errorf("there is no machine %s", name)
		}
		if _, err := m.Skep(ctx, "swarm", "join", "--token", tokens[role], fmt.Sprintf("%s:%d", first.Address, Port)); err != nil {
			return err
		}
	}
	return nil
}

// Leader returns the machine that leads, as the given one sees it; it waits while there is none.
func (n *Network) Leader(ctx context.Context, from *Machine) (*Machine, error) {
	for {
		out, err := from.Skep(ctx, "node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
		for line := range strings.Lines(out) {
			name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
			if m := n.Machine(name); err == nil && status == "Leader" && m != nil {
				return m, nil
			}
		}
		if pauseErr := pause(ctx); pauseErr != nil {
			return nil, fmt.Errorf("no leader: %w (last answer: %q, %w)", pauseErr, out, err)
		}
	}
}

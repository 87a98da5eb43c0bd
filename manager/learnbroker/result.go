package learnbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/security"
)

// result makes the profile (P1), and says what is odd about it (P2).
func (b *Broker) result(ctx context.Context, l *learning) (*api.LearnResult, error) {
	var warnings []string
	now, err := b.find(ctx, l.subject.service.GetId())
	switch {
	case fault.KindOf(err) == fault.NotFound:
		warnings = append(warnings, "the service was removed meanwhile")
	case err != nil:
		return nil, err
	case !proto.Equal(now.privileges().GetSeccomp(), l.subject.privileges().GetSeccomp()):
		warnings = append(warnings, "the service has another seccomp profile now than when learning began, which is the one that was narrowed")
	}
	l.late(now)
	p := l.progress()
	if p.GetTasks() == 0 {
		return nil, fault.New(fault.Precondition, "no task of service %s ran where it could be recorded%s: nothing was learned",
			l.subject.name(), reasons(p.GetGaps()))
	}
	var names []string
	for _, name := range p.GetUsed() {
		if security.IsCallName(name) {
			names = append(names, name)
			continue
		}
		warnings = append(warnings, fmt.Sprintf("the profile lacks a call that was used and has no name: %s", name))
	}
	profile, err := security.Narrow(l.subject.privileges(), names, l.compat())
	if err != nil {
		return nil, fault.New(fault.Precondition, "service %s: %w", l.subject.name(), err)
	}
	if err := security.CheckProfile(profile); err != nil {
		return nil, fmt.Errorf("check the learned profile: %w", err)
	}
	if err := b.cfg.Compile(profile); err != nil {
		return nil, fmt.Errorf("compile the learned profile: %w", err)
	}
	if p.GetFromStart() == 0 {
		warnings = append(warnings, "no task started while it was recorded: the calls with which the program starts are missing, and the service may "+
			"not start with this profile; learn with --restart")
	}
	if l.compat() {
		warnings = append(warnings, "some calls were made by the 32-bit ABI, which the profile therefore allows")
	}
	return &api.LearnResult{Profile: profile, Progress: p, Warnings: warnings}, nil
}

// late takes in nodes that have come while learning.
func (l *learning) late(now subject) {
	l.notice(now.tasks)
	for _, described := range now.nodes {
		if slices.ContainsFunc(l.nodes, func(n *node) bool { return n.id == described.GetId() }) {
			continue
		}
		l.nodes = append(l.nodes, &node{
			id: described.GetId(), hostname: described.GetDescription().GetHostname(), err: errors.New("the node joined after learning began"),
		})
	}
}

// reasons lists gaps for an error.
func reasons(gaps []*api.LearnGap) (text string) {
	for _, g := range gaps {
		text += fmt.Sprintf("; node %s: %s", g.GetNodeHostname(), g.GetReason())
	}
	return clip(text)
}

package daemon

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/manager/raftnet"
	"github.com/skep-io/skep/store"
)

// relocate returns a membership with the addresses that this machine has now, and saves it when they changed. What other nodes are
// told is, in this order:
//
//  1. what the daemon was started with, --advertise-addr;
//  2. the address of before, when it is still one of this machine's, or never was, such as that of a router;
//  3. the machine's only address now. When there are several, the one of before: nobody can know which it should be.
func (d *Daemon) relocate(m membership) (membership, error) {
	now := m
	own, err := ownAddress(m.AdvertiseAddress)
	switch {
	case d.cfg.AdvertiseAddress != "":
		if now.AdvertiseAddress, err = advertiseAddress(d.cfg.AdvertiseAddress, m.ListenAddress); err != nil {
			return m, err
		}
		now.AdvertiseOwn, err = ownAddress(now.AdvertiseAddress)
	case err == nil && own:
		now.AdvertiseOwn = true
	case err == nil && m.AdvertiseOwn:
		now, err = m.moved()
	}
	if err != nil { // the network may still be starting
		d.logger.Warn("the address that other nodes know is not one of this machine's any more: start the daemon with --advertise-addr",
			"address", m.AdvertiseAddress, "error", err)
		return m, nil
	}
	if now.AdvertiseAddress != m.AdvertiseAddress {
		d.logger.Info("other nodes are told another address", "before", m.AdvertiseAddress, "now", now.AdvertiseAddress)
	}
	if now.AdvertiseAddress == m.AdvertiseAddress && now.AdvertiseOwn == m.AdvertiseOwn && now.ListenAddress == m.ListenAddress {
		return m, nil
	}
	return now, d.disk.saveMembership(now)
}

// moved returns the membership at the machine's only address. Who listened at the former address listens there, too.
func (m membership) moved() (membership, error) {
	addr, err := onlyAddress()
	if err != nil {
		return m, err
	}
	before, port, err := net.SplitHostPort(m.AdvertiseAddress)
	if err != nil {
		return m, err
	}
	if host, listenPort, err := net.SplitHostPort(m.ListenAddress); err == nil && host == before {
		m.ListenAddress = net.JoinHostPort(addr.String(), listenPort)
	}
	m.AdvertiseAddress = net.JoinHostPort(addr.String(), port)
	return m, nil
}

const (
	// announcePeriod is the time between two looks at whether the managers know this one as it is.
	announcePeriod = time.Second
	// maxAnnouncePeriod is the longest time between two tries to tell them: while most of them run an older version, they can't take it.
	maxAnnouncePeriod = 16 * time.Second
)

// keepMember keeps this manager's record in the group what it is: at which address, and of which protocol. It returns
// store.ErrRemoved when this manager learns that it was removed, and nil when ctx ends.
func (n *node) keepMember(ctx context.Context, s *store.Store) error {
	pause, leaderless := announcePeriod, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		status := s.Status()
		wanted := n.wantedMember(status)
		if wanted == nil && leaderless && status.LeaderID == "" {
			wanted = n.member(status.RaftID) // nobody leads it: it may have been removed while it was away
		}
		leaderless = status.LeaderID == ""
		if wanted == nil {
			pause = announcePeriod
			continue
		}
		err := n.announceMember(ctx, wanted)
		switch {
		case errors.Is(err, store.ErrRemoved):
			return err
		case err != nil:
			pause = min(2*pause, maxAnnouncePeriod)
			n.logger.Debug("the managers don't know yet where this one is", "address", wanted.GetAddress(), "error", err)
		default:
			pause = announcePeriod
		}
	}
}

// member is this manager as the others should know it.
func (n *node) member(raftID uint64) *api.Member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return &api.Member{RaftId: raftID, NodeId: n.identity.NodeID(), Address: n.membership.AdvertiseAddress, Protocol: store.Protocol}
}

// wantedMember returns what this manager's record should be, or nil when it is that, or when it has no vote yet.
func (n *node) wantedMember(status store.Status) *api.Member {
	wanted := n.member(status.RaftID)
	for _, member := range status.Members {
		known := member.Member
		if known.GetRaftId() == status.RaftID && !known.GetLearner() &&
			(known.GetAddress() != wanted.GetAddress() || known.GetProtocol() != wanted.GetProtocol()) {
			return wanted
		}
	}
	return nil
}

// announceMember tells the managers, the others first: they know who leads when this one does not.
func (n *node) announceMember(ctx context.Context, member *api.Member) error {
	var errs []error
	n.mu.Lock()
	addresses := append(n.membership.Managers[:len(n.membership.Managers):len(n.membership.Managers)], n.membership.AdvertiseAddress)
	n.mu.Unlock()
	for _, address := range addresses {
		err := n.announceTo(ctx, address, member)
		if err == nil || errors.Is(err, store.ErrRemoved) {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (n *node) announceTo(ctx context.Context, address string, member *api.Member) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	conn, err := n.dial(ca.OUManager, address)
	if err != nil {
		return err
	}
	return errors.Join(raftnet.Announce(ctx, conn, member), conn.Close())
}

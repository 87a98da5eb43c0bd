package keymanager

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

// errNotThere is returned while the cluster does not know this node, or this manager's store does not show it yet.
var errNotThere = errors.New("this node is not in the store yet")

// longestRest bounds the pause between two looks at the clock, so that a clock that was set is noticed.
const longestRest = time.Hour

// untilDue returns how long a data key may stay, given the time when it was made and the age at which it is changed: 0 or less is
// due now. It is not longer than longestRest. The age 0 is never. A key that was made an age or more in the future was made by a
// clock that was wrong, and is due, as one is whose time is not known.
func untilDue(now, madeAt time.Time, at time.Duration) time.Duration {
	if at <= 0 {
		return longestRest
	}
	return min(at-now.Sub(madeAt).Abs(), longestRest)
}

// rotate changes the data key when people asked for it or it is too old. Both are decided from what is on this manager's disk: a
// restart, another leader, or having been down changes nothing (K1).
func (m *Manager) rotate(ctx context.Context, cluster *api.Cluster) error {
	madeAt, served := m.cfg.DataKey.DataKey()
	asked := served < cluster.GetDataKeyGeneration()
	if !asked && untilDue(time.Now(), madeAt, cluster.GetSpec().GetDataKeyRotation().AsDuration()) > 0 {
		return nil
	}
	if err := m.cfg.DataKey.RotateDataKey(ctx); err != nil {
		return err
	}
	m.cfg.Logger.Info("the data key of the store was changed", "asked", asked)
	if !asked {
		return nil
	}
	return m.cfg.DataKey.DataKeyServed(cluster.GetDataKeyGeneration())
}

// report tells the cluster how this manager's data key is, unless it knows.
func (m *Manager) report(ctx context.Context, self *api.Node) error {
	madeAt, generation := m.cfg.DataKey.DataKey()
	now := &api.DataKeyStatus{Generation: generation}
	if !madeAt.IsZero() {
		now.ChangedAt = timestamppb.New(madeAt)
	}
	switch {
	case self == nil:
		return errNotThere
	case proto.Equal(self.GetDataKey(), now):
		return nil
	}
	return m.cfg.Report(ctx, now)
}

package daemon

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/manager"
)

// renew asks the managers for a new certificate.
func (n *node) renew(ctx context.Context) (renewed ca.Credentials, err error) {
	if !time.Now().Before(n.identity.Expiry()) {
		renewed, err = n.renewExpired(ctx)
		n.setExpired(err)
		return renewed, err
	}
	err = n.eachManager(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		renewed, err = ca.RenewOver(ctx, conn, n.identity)
		return err
	})
	return renewed, err
}

// renewExpired asks for a new certificate in place of one that has expired, which no manager accepts: by proof of its key. A manager
// that leads by itself, as one that was off all alone, asks itself: nobody could connect to it.
func (n *node) renewExpired(ctx context.Context) (renewed ca.Credentials, err error) {
	n.logger.Warn("this node's certificate has expired; it asks for another one by proof of its key", "expired", n.identity.Expiry())
	if m := n.leads(); m != nil {
		return ca.RenewBy(ctx, n.identity, m.RenewOwn)
	}
	err = n.eachManagerAs(ctx, n.identity.ExpiredCredentials(), func(ctx context.Context, conn *grpc.ClientConn) error {
		renewed, err = ca.RenewExpired(ctx, conn, n.identity)
		return err
	})
	return renewed, err
}

// leads returns this node's manager if it leads, or nil.
func (n *node) leads() *manager.Manager {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.manager == nil || n.store == nil {
		return nil
	}
	if _, _, self := n.store.Leader(); !self {
		return nil
	}
	return n.manager
}

func (n *node) setManager(m *manager.Manager) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.manager = m
}

func (n *node) setExpired(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.expired = err
}

// describeExpired says what is wrong with a node whose certificate has expired.
func (n *node) describeExpired(info *api.GetInfoResponse) {
	end := n.identity.Expiry()
	if time.Now().Before(end) {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	info.State = api.LocalNodeState_LOCAL_NODE_STATE_ERROR
	info.Error = fmt.Sprintf("this node's certificate expired at %s, and is not renewed yet", end.UTC().Format(time.RFC3339))
	if n.expired != nil {
		info.Error += ": " + n.expired.Error()
	}
}

package daemon

import (
	"context"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
)

// answersLocked reports whether a locked node answers a method: what unlocks it, or forgets its swarm or its store, and what says
// that it is locked. It does not listen for other nodes at all.
func answersLocked(method string) bool {
	switch method {
	case api.Daemon_GetInfo_FullMethodName, api.Daemon_UnlockSwarm_FullMethodName, api.Daemon_LeaveSwarm_FullMethodName,
		api.Daemon_RejoinSwarm_FullMethodName:
		return true
	}
	return false
}

// admit returns errLocked for what a locked node does not answer.
func (d *Daemon) admit(method string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked && !answersLocked(method) {
		return errLocked
	}
	return nil
}

// unlessLocked are the interceptors that ask admit. They come after those that authorize: a stranger does not learn that the node
// is locked.
func (d *Daemon) unlessLocked() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			if err := d.admit(info.FullMethod); err != nil {
				return nil, err
			}
			return handler(ctx, request)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := d.admit(info.FullMethod); err != nil {
				return err
			}
			return handler(srv, stream)
		}),
	}
}

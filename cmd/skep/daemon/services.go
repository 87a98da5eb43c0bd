package daemon

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/manager/audit"
	"github.com/skep-io/skep/manager/authz"
)

// managedServices are the gRPC services of a manager, which come and go while the servers that offer them run: a node is promoted
// or leaves its swarm without closing the connection that asked for it.
//
// It is a grpc.ServiceRegistrar for the manager that comes.
type managedServices struct {
	// absent says why no manager answers.
	absent func() error

	// mu guards the rest, which is of the present manager, or nil.
	mu      sync.RWMutex
	current map[string]any
	unary   grpc.UnaryServerInterceptor
	nodes   authz.Nodes
	users   authz.Users
	audit   *audit.Log
}

func newManagedServices(absent func() error) *managedServices {
	return &managedServices{absent: absent, current: map[string]any{}}
}

// RegisterService makes impl answer the service from now on.
func (s *managedServices) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current[desc.ServiceName] = impl
}

// arrive makes a manager's interceptor, records and audit log count, and depart takes all of it away again.
func (s *managedServices) arrive(unary grpc.UnaryServerInterceptor, nodes authz.Nodes, users authz.Users, log *audit.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unary, s.nodes, s.users, s.audit = unary, nodes, users, log
}

func (s *managedServices) depart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current, s.unary, s.nodes, s.users, s.audit = map[string]any{}, nil, nil, nil, nil
}

func (s *managedServices) find(name string) (any, error) {
	s.mu.RLock()
	impl, ok := s.current[name]
	s.mu.RUnlock()
	if !ok {
		return nil, s.absent()
	}
	return impl, nil
}

// forward is the present manager's interceptor, or none.
func (s *managedServices) forward(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s.mu.RLock()
	unary := s.unary
	s.mu.RUnlock()
	if unary == nil {
		return handler(ctx, request)
	}
	return unary(ctx, request, info, handler)
}

// log returns the present manager's door to the audit log, or nil.
func (s *managedServices) log() *audit.Log {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.audit
}

// record is the present manager's interceptor of streams, or none.
func (s *managedServices) record(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if log := s.log(); log != nil {
		return log.Stream()(srv, stream, info, handler)
	}
	return handler(srv, stream)
}

// refused tells the present manager of a call that was refused.
func (s *managedServices) refused(r authz.Refusal) {
	if log := s.log(); log != nil {
		log.Refused(r)
	}
}

// records returns the present manager's records of nodes, or nil.
func (s *managedServices) records() authz.Nodes {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.nodes
}

// userRecords returns the present manager's records of users, or nil.
func (s *managedServices) userRecords() authz.Users {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.users
}

// offer registers a service at a server, with handlers that look up at each call who answers.
func (s *managedServices) offer(server *grpc.Server, desc *grpc.ServiceDesc) {
	offered := grpc.ServiceDesc{ServiceName: desc.ServiceName, Metadata: desc.Metadata}
	for _, method := range desc.Methods {
		handler := method.Handler
		method.Handler = func(_ any, ctx context.Context, dec func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
			impl, err := s.find(desc.ServiceName)
			if err != nil {
				return handler(nil, ctx, dec, refusing(interceptor, err))
			}
			return handler(impl, ctx, dec, interceptor)
		}
		offered.Methods = append(offered.Methods, method)
	}
	for _, stream := range desc.Streams {
		handler := stream.Handler
		stream.Handler = func(_ any, stream grpc.ServerStream) error {
			impl, err := s.find(desc.ServiceName)
			if err != nil {
				return err
			}
			return handler(impl, stream)
		}
		offered.Streams = append(offered.Streams, stream)
	}
	server.RegisterService(&offered, nil)
}

// refusing is the interceptor of a service that isn't there: those who may not call learn that first, the others get err.
func refusing(interceptor grpc.UnaryServerInterceptor, err error) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		return interceptor(ctx, request, info, func(context.Context, any) (any, error) { return nil, err })
	}
}

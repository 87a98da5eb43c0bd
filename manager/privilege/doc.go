// Package privilege says what a service's containers may do beyond the default container, and who let them.
//
// The default container is Docker's with more walls: a user namespace of its own, fourteen capabilities, no new privileges, seccomp, and
// no device, directory or namespace of the node. Whatever goes beyond it comes from a grant: an object that an administrator made.
//
// It decides about specs only. Admission (package control) asks it for [Excesses] and refuses them; [Differences] are for people who look
// at a service, and [Benchmark] for those who look at a swarm. What a node does with a grant is the agent's business.
//
// # Invariants
//
//   - P1: a spec without grants that has no excess gives the default container or a more restricted one.
//   - P2: adding a grant never makes an excess; removing one never hides any.
//
// All functions are pure, and nothing that they get is changed.
package privilege

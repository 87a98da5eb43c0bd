// Package joingrant is the loop of the leader that removes join grants which are of no use any more.
//
// It does not decide who joins: package ca does (ClaimGrant), and manager/caserver enters it. An ended grant is refused whether it is
// still there or not.
//
//	made --expires--> ended --a day, and nobody waits with it--> removed
//
// For a day a grant remains, so that who comes late is told that the token has expired, and people see who used it. As long as a node
// that came by it waits for approval it remains too, because that node can only ask with its token.
//
// # Concurrency
//
// A Reaper runs once, on the leader.
package joingrant

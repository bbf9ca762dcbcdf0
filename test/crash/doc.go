// Package crash hurts the real command, again and again, while it replays the bundled month, and holds every
// book against every other, and every event against what was handled, when it has gone on to the end.
//
// TestCrash kills the shop in one process, at named points: `make crash KILLS=n SEED=s`. TestServers runs a process
// for each service on a database server and a broker, and kills, ends and pauses all of them, and whoever places the
// orders: `make crash STORE=postgres BROKER=kafka KILLS=n SEED=s`. PAUSE=payment has its processes paused, and no
// others. A seed repeats a run's plan: what is hurt, how, after how many events. What else happens at that moment is the
// machine's affair.
package crash

import threading

from response_tuning.serve.playground.weights import _Turns


def test_turns_go_round_in_the_order_of_asking() -> None:
    turns, order = _Turns(), list[str]()
    ready = threading.Barrier(3)

    def work(name: str) -> None:
        ready.wait()
        with turns:
            for _ in range(20):
                order.append(name)
                turns.release()
                turns.acquire()

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    with turns:  # nobody begins before all have asked
        for thread in threads:
            thread.start()
        while len(turns._waiting) < 4:
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join(timeout=30)
    assert len(order) == 60
    rounds = {tuple(order[at : at + 3]) for at in range(0, 60, 3)}
    assert len(rounds) == 1, order

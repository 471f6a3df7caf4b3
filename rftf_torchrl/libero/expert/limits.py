"""Tasks that the expert did in none of five new states: see docs/how-to/libero.md."""

_CADDY = "pick_up_the_book_and_place_it_in_the_front_compartment_of_the_caddy"
_PAN = "KITCHEN_SCENE9_put_the_frying_pan"
_SHELF = "STUDY_SCENE4_pick_up_the_book"

NEVER_DONE = (
    "KITCHEN_SCENE8_put_both_moka_pots_on_the_stove",
    "KITCHEN_SCENE6_put_the_yellow_and_white_mug_in_the_microwave_and_close_it",
    "KITCHEN_SCENE1_open_the_bottom_drawer_of_the_cabinet",
    "KITCHEN_SCENE3_put_the_frying_pan_on_the_stove",
    "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_frying_pan_on_it",
    "KITCHEN_SCENE5_put_the_ketchup_in_the_top_drawer_of_the_cabinet",
    "KITCHEN_SCENE7_open_the_microwave",
    f"{_PAN}_on_the_cabinet_shelf",
    f"{_PAN}_on_top_of_the_cabinet",
    f"{_PAN}_under_the_cabinet_shelf",
    "KITCHEN_SCENE9_turn_on_the_stove_and_put_the_frying_pan_on_it",
    f"STUDY_SCENE1_{_CADDY}",
    f"STUDY_SCENE2_{_CADDY}",
    f"STUDY_SCENE3_{_CADDY}",
    f"{_SHELF}_in_the_middle_and_place_it_on_the_cabinet_shelf",
    f"{_SHELF}_on_the_right_and_place_it_on_the_cabinet_shelf",
    f"{_SHELF}_on_the_right_and_place_it_under_the_cabinet_shelf",
)
